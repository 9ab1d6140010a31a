"""What a setting or a parameter may be: one border, whoever gives it."""

import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.setting_values import PAIRS

from bench.contracts.specs import Parameter, StrategySpec
from bench.contracts.strategy import Strategy
from bench.errors import UserError
from bench.running.parts.declaration import (
    ALL,
    DeclaredSetting,
    Mode,
    help_of,
    option,
    setting_of,
)
from bench.running.parts.settings import (
    SETTINGS,
    RunConfig,
    make_config,
)
from bench.running.prepare import resolve


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("limit", True),
        ("limit", 2.5),
        ("limit", 0),
        ("limit", 10**40),
        ("batch_size", "many"),
        ("batch_size", 10**12),
        ("seed", "3"),
        ("fresh", 1),
        ("resolution", 1_000_000),
        ("template", "a {class} \ud800"),
        ("template", ""),
        ("results", "a\0b"),
        ("device", "banana"),
        ("device", "cuda:"),
        ("levels", "7-3"),
        ("plan", "gird"),
        ("params", ["draws=3"]),
        ("dataset", 3),
    ],
)
def test_a_wrong_value_is_named_in_one_line(setting: str, value: Any) -> None:
    with refused(option(setting)) as caught:
        make_config({"dataset": "digits", setting: value})
    message = str(caught.value)
    assert message.startswith(f"--{setting.replace('_', '-')}: ")
    assert "\n" not in message and len(message) < 200


def test_a_path_is_taken_as_its_text(tmp_path: Path) -> None:
    assert make_config({"dataset": "digits", "results": tmp_path}).results == str(tmp_path)


NUMBERS = [
    name
    for name, field in RunConfig.model_fields.items()
    if re.search(r"\b(int|float)\b", str(field.annotation))
]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_wrong_number_is_refused_alike_by_every_door(name: str) -> None:
    with pytest.raises(UserError) as refusal:
        make_config({"dataset": "digits", name: "1x"})
    by_option = bench("run", "digits", f"{option(name)}=1x")
    by_variable = bench("run", "digits", **{f"BENCH_{name.upper()}": "1x"})
    assert by_option == by_variable and by_option.code == 2
    assert by_option.err == f"Error: {refusal.value}\n"


def test_the_wrong_value_of_a_list_is_the_one_that_is_named() -> None:
    with refused("--tracker", "'x'"):
        make_config({"dataset": "digits", "tracker": ["wandb", "x"]})


@pytest.mark.parametrize("line", ["limit = true", "limit = 1.0", "fresh = 'yes'", "seed = '1'"])
def test_a_file_is_checked_as_options_are(line: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(line)
    done = bench("run", "digits", "--config", tmp_path / "run.toml", "--dry-run")
    assert done.code == 2 and done.err.startswith("Error: --") and done.err.count("\n") == 1


TYPED = {
    "whole": Parameter(500),
    "real": Parameter(0.5),
    "flag": Parameter(False),
    "word": Parameter("t"),
    "list": Parameter((5, 1)),
    "later": Parameter(None, type=int),
    "stages": Parameter(None, type=tuple[int, ...]),
    "choice": Parameter("one", type=Literal["one", "two"]),
}
SPEC = StrategySpec(name="s", target="a:B", parameters=TYPED)


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("whole", "7", 7),
        ("whole", np.int64(7), 7),
        ("real", "1", 1.0),
        ("real", 1, 1.0),
        ("flag", "yes", True),
        ("word", "x", "x"),
        ("list", "3, 1", (3, 1)),
        ("list", [3, 1], (3, 1)),
        ("list", 3, (3,)),
        ("list", "3", (3,)),
        ("whole", 4.0, 4),
        ("whole", "4.0", 4),
        ("word", 3, "3"),
        ("later", "3", 3),
        ("stages", "4,40", (4, 40)),
        ("whole", None, 500),
    ],
)
def test_a_parameter_is_converted(name: str, value: Any, parsed: Any) -> None:
    found = SPEC.resolve_parameters({name: value})[name]
    assert found == parsed and type(found) is type(parsed)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *[("whole", value, "500") for value in ("1e22", 1e22, True, 7.5)],
        *[("real", value, "0.5") for value in ("nan", float("inf"), True)],
        ("flag", "maybe", "False"),
        ("word", {}, ""),
        ("word", "\ud800", ""),
        ("list", "3,x", "5,1"),
        ("list", {}, "5,1"),
        ("later", "x", "number"),
        ("choice", "three", "one or two"),
        ("stages", "x", "list"),
    ],
)
def test_a_parameter_that_does_not_fit(name: str, value: Any, wanted: str) -> None:
    with refused(f"'{name}'", wanted):
        SPEC.resolve_parameters({name: value})


@pytest.mark.parametrize("draws", [0, -1, 10**8])
def test_draws_have_a_bound(draws: int) -> None:
    config = {"dataset": "digits", "strategy": "race", "params": {"draws": draws}}
    with refused("draws"):
        resolve(make_config(config))


@pytest.mark.parametrize(
    "strategy", ["full", "adaptive", "uniform", "halving", "paired-ttest", "race", "screen-race"]
)
def test_strategies_get_the_backbones_number_of_draws(strategy: str) -> None:
    settings = {"dataset": "ucmerced", "backbone": "tiny-landuse", "strategy": strategy}
    resolved = resolve(make_config(settings))
    assert resolved.decider.parameters["draws"] == resolved.backbone.draws == 40
    resolved = resolve(make_config({**settings, "params": {"draws": 60}}))
    assert resolved.decider.parameters["draws"] == 60


def test_declarations_name_settings_and_abilities_that_exist() -> None:
    for declared in SETTINGS.values():
        excluded = {name.partition("=")[0] for name in declared.excludes}
        fitting = inspect.signature(declared.fits).parameters if declared.fits else ()
        named = {*excluded, *filter(None, [declared.needs]), *fitting}
        assert named <= {*SETTINGS, *get_args(Mode)}
        assert declared.ability is None or hasattr(Strategy, declared.ability)


def test_help_names_the_backbones_that_read_a_setting() -> None:
    fields = RunConfig.model_fields
    assert help_of(fields["loss"]).endswith("[for denoisers]")
    declared = DeclaredSetting(("machine",), ALL)
    assert setting_of(fields["batch_size"]) == declared
    assert help_of(fields["batch_size"]).endswith("then cached.")


def test_only_what_differs_from_its_default_enters_the_identity() -> None:
    config = make_config({"dataset": "x", "guidance": 3.0, "control": "grey", "tf32": True})
    assert config.changed().keys() == {"dataset", "guidance", "control", "tf32"}
    assert config.in_identity("scoring") == {"guidance": 3.0}
    assert config.in_identity("run") == {"control": "grey"}
    assert config.in_identity("precision", "half") == {"tf32": True}
    assert make_config({"dataset": "x", "latent": "mean"}).in_identity("scoring") == {}


def test_a_guidance_of_one_is_the_prediction_itself() -> None:
    assert make_config({"dataset": "x", "guidance": 1.0}).guidance is None


DECLARED = [(name, other) for name in SETTINGS for other in SETTINGS[name].excludes]
MODES = [(name, other) for name, other in DECLARED if other in get_args(Mode)]
EXCLUSIONS = sorted({*DECLARED} - {*MODES})


@pytest.mark.parametrize(("name", "other"), EXCLUSIONS)
def test_settings_that_exclude_each_other_are_refused(name: str, other: str) -> None:
    excluded, _, value = other.partition("=")
    values = {key: PAIRS[key][1] for key in (name, excluded)} | {"dataset": "x"}
    for chosen in [value, f"{value}:4"] if value else [values[excluded]]:
        with refused(option(excluded)):
            make_config({**values, excluded: chosen})


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_a_mode_is_refused_with_the_settings_that_exclude_it(name: str, mode: Mode) -> None:
    with refused("--a-mode", option(name)):
        make_config({"dataset": "x", name: PAIRS[name][1]}).check_mode(mode, "--a-mode")
    make_config({"dataset": "x"}).check_mode(mode, "--a-mode")
