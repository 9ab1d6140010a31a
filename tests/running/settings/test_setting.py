"""What is declared of a setting on its field, and what is derived from it."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
from helpers.refusals import refused
from helpers.setting_values import PAIRS

from bench.contracts.strategy import Strategy
from bench.running.settings import (
    SETTINGS,
    RunConfig,
    changed,
    check_mode,
    identity_settings,
    make_config,
)
from bench.running.settings.declaration import (
    ALL,
    DeclaredSetting,
    Mode,
    help_of,
    option,
    setting_of,
)


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
    assert changed(config).keys() == {"dataset", "guidance", "control", "tf32"}
    assert identity_settings(config, "scoring") == {"guidance": 3.0}
    assert identity_settings(config, "run") == {"control": "grey"}
    assert identity_settings(config, "precision", "half") == {"tf32": True}
    assert identity_settings(make_config({"dataset": "x", "latent": "mean"}), "scoring") == {}


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
        check_mode(make_config({"dataset": "x", name: PAIRS[name][1]}), mode, "--a-mode")
    check_mode(make_config({"dataset": "x"}), mode, "--a-mode")


@pytest.mark.parametrize("loss", ["l1", "huber", "norm"])
def test_a_weighting_of_another_error_is_refused(loss: str) -> None:
    settings = {"dataset": "x", "weighting": "snr", "loss": loss}
    with refused("--weighting: snr", f"--loss {loss}"):
        make_config(settings)
    make_config({**settings, "space": "sample"})
