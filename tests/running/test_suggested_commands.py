"""The commands that messages suggest are accepted, and make the same run again."""

import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from diffusers import DiffusionPipeline
from helpers.captions import two_images
from helpers.command import bench
from helpers.given import Given
from helpers.loras import save_lora
from helpers.matrix import matrix
from helpers.places import ROOT
from helpers.recorded import record, replay
from helpers.runs import a_manifest, store
from helpers.setting_values import COMPANIONS, PAIRS, filled, make_files

from bench.cli.main import cli
from bench.running.command import (
    option_words,
    other_images_command,
    recording_command,
    reproducing_command,
)
from bench.running.parts.settings import SETTINGS, make_config
from bench.running.prepare import prepare
from bench.store.folder import read_manifest
from bench.store.formats.documents import Manifest, StoredConfig
from bench.store.formats.identity import CalibratedOn

OWN: dict[str, dict[str, Any]] = {  # what suits a run that is planned on this machine
    "encoding": {"dtype": "bfloat16", "encoding": "float32"},
    "hierarchy": {"strategy": "hierarchy"},
    "noise": {"backbone": "{root}/whole", "strategy": "full", "params": {"draws": 3}},
    "resolution": {"backbone": "{root}/whole"},
    "normalize": {"backbone": "{root}/whole"},
    "risk": {"risk": 0.3},
    "risk_else": {"risk": 0.3},
    "subtract_null": {"strategy": "full"},
    "weights": {"backbone": "sd15"},
    "backbone": {"backbone": "{root}/whole"},
    "lora": {"lora": ["{root}/lora:0.5"]},
    "device": {"device": "cpu"},
}
ALIKE = {"normalize", "weights"}  # name the same pipeline as others do
# Settings that no command of this machine can be run with: the commands are only parsed.
ELSEWHERE = {"revision": "v1", "tf32": True, "executor": "ray", "workers": 2, "ray_address": "auto"}
ELSEWHERE |= {"tracker": "wandb"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files that the settings name."""
    root = make_files(tmp_path_factory.mktemp("commands"))
    save_lora(DiffusionPipeline.from_pretrained(root / "whole"), root / "lora")
    return root


def settings_of(name: str, root: Path) -> dict[str, Any]:
    """Return the settings of a run that has the setting `name`."""
    run: dict[str, Any] = {
        "backbone": "tiny-digits",
        "weights": None,
        "results": "{root}/r",
        "dtype": None,
    }
    run |= {"dataset": "{root}/pictures", "strategy": "race", "params": {"draws": 10}}
    chosen = {**run, **COMPANIONS.get(name, {}), name: PAIRS[name][1], **OWN.get(name, {})}
    return {key: filled(value, root) for key, value in chosen.items()}


def manifest_of(settings: Mapping[str, Any]) -> Manifest:
    """Return the manifest of a run, which is not made; a risk was calibrated on other images."""
    risk = settings.get("risk")
    certain = {
        k: v for k, v in settings.items() if k not in ("risk", "risk_else", "again", "audit")
    }
    manifest = prepare(make_config(certain)).manifest
    left_out = {name: value for name, value in settings.items() if name not in certain}
    recorded = StoredConfig(**{**manifest.config.plain(), **left_out})
    identity = manifest.identity
    if risk is not None:
        calibrated = CalibratedOn(
            identity="i",
            run_id="x",
            fingerprint="f",
            split="validation",
            images=6,
            disagreements=0,
            risk=risk,
            level=0.9,
        )
        identity = identity.model_copy(update={"calibrated": calibrated})
    return manifest.model_copy(update={"config": recorded, "identity": identity})


@pytest.mark.usefixtures("captions")
@pytest.mark.parametrize(
    "name",
    matrix(sorted(SETTINGS.keys() - ELSEWHERE.keys()), SETTINGS.keys() - ELSEWHERE.keys() - ALIKE),
)
def test_what_is_suggested_for_a_run_is_accepted(name: str, root: Path) -> None:
    Given.rows = two_images()
    manifest = manifest_of(settings_of(name, root))
    split = manifest.identity.dataset.split
    other = "train" if split == "test" else split  # of data without splits there is no other
    for made in (recording_command, reproducing_command, other_images_command):
        _, *words = shlex.split(made(manifest))
        words = [other if word == "OTHER" else word for word in words]
        assert refusal(shlex.join(words), f"{root}/r") is None, made.__name__


@cache
def refusal(command: str, results: str) -> str | None:
    """Return why a command is refused; None if it is accepted. Many runs suggest the same one."""
    planned = bench(*shlex.split(command), "--results", results, "--json", "--dry-run")
    return None if planned.code == 0 else f"{command}: {planned.err}"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_suggested_for_a_run_of_elsewhere_is_parsed(name: str, root: Path) -> None:
    manifest = manifest_of(settings_of("dataset", root))
    manifest = manifest.model_copy(
        update={"config": StoredConfig(**{**manifest.config.plain(), name: ELSEWHERE[name]})}
    )
    for made in (recording_command, reproducing_command, other_images_command):
        _, command, *words = shlex.split(made(manifest))
        chosen = cli.get_command(click.Context(cli), command)
        assert chosen is not None
        chosen.make_context(command, words)


def test_what_learn_and_replay_suggest_is_accepted(tmp_path: Path) -> None:
    config = {"dataset": "digits", "backbone": "tiny-digits", "limit": 8}
    run = store(tmp_path, [0, 1], [0, 1], config=config)
    for asked, strategy in (
        (["replay", run, "--strategy", "race"], "full"),
        (["learn", run, "reach"], "full-linearised"),
    ):
        done = bench(*asked)
        assert done.code == 2
        _, *command = shlex.split(done.err.rpartition("with: ")[2])
        assert command[command.index("--strategy") + 1] == strategy
        planned = bench(*command, "--results", tmp_path / "new", "--dry-run")
        assert planned.code == 0, planned.err


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    done = bench("show", "nothing", "--results", tmp_path / "my results")
    _, listing, _ = done.err.split("`")
    assert done.code == 2 and bench(*shlex.split(listing)[1:]).code == 0


def test_a_replay_names_its_own_weighting() -> None:
    scoring = {"loss": "l2", "weighting": "snr"}
    changed = a_manifest(["1"], scoring=scoring, replayed_from="x")
    assert reproducing_command(changed) == "bench replay x --strategy full --weighting snr"
    config = {"dataset": "d", "weighting": "snr"}
    same = a_manifest(["1"], scoring=scoring, replayed_from="x", config=config)
    assert reproducing_command(same) == "bench replay x --strategy full"


def test_the_command_makes_the_same_run_again(tmp_path: Path) -> None:
    made = bench(
        *("run", "digits", "--backbone", "random", "--set", "seed=3", "--limit", 8),
        *("--template", "a {class}", "--template", "the {class}", "--template-rule", "mean"),
        *("--results", tmp_path, "--json"),
    ).json
    recorded = record(tmp_path)
    replayed = replay(recorded, "race", {"delta": "0.1"}, tmp_path, limit=6)
    for run_id in (made["run_id"], replayed["run_id"]):
        words = shlex.split(reproducing_command(read_manifest(tmp_path / run_id)))
        again = bench(*words[1:], "--results", tmp_path, "--json")
        assert again.code == 0, again.err
        assert (again.json["run_id"], again.json["resumed"]) == (run_id, "complete")


def test_a_run_is_made_again_with_what_its_backbone_set() -> None:
    """`--strategy` alone would leave the parameters out that the backbone sets for its own."""
    run = next((ROOT / "results" / "published").glob("ucmerced-tiny-landuse-race-efd785f2"))
    words = shlex.split(reproducing_command(read_manifest(run)))
    assert "first=2" in words and "draws=40" in words


def test_settings_become_options_in_their_order() -> None:
    settings = {"limit": 3, "save_errors": True, "tag": ["a", "b"], "seed": None, "top": 2}
    words = ["--limit", "3", "--save-errors", "--tag", "a", "--tag", "b", "--top", "2"]
    assert option_words({**settings, "params": {"draws": 4}}) == [*words, "--set", "draws=4"]
