"""The commands that messages suggest are accepted, whatever settings the stored run has."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

import click
import numpy as np
import pytest
import torch
from helpers.captions import Captions, two_images
from helpers.command import bench
from helpers.given import make_folder, picture, write_parquet
from helpers.loras import save_lora
from helpers.matrix import matrix
from helpers.pipelines import save_indexed
from helpers.setting_values import PAIRS
from PIL import Image
from safetensors.torch import save_file

from bench.cli.main import cli
from bench.running.command import other_images_command, recording_command, reproducing_command
from bench.running.prepare import prepare
from bench.running.settings import SETTINGS, make_config
from bench.store.documents import Manifest, StoredConfig
from bench.store.identity import CalibratedOn

NAMES = ("cat", "dog", "fir")
BASE = {
    **{"dataset": "{root}/pictures", "backbone": "tiny-digits", "strategy": "race"},
    **{"params": {"draws": 10}, "results": "{root}/r"},
}
CANDIDATES = {"candidates_from": "{stored}", "top": 2}
COLUMNS = {"image_column": "picture", "label_column": "kind", "id_column": "name"}
TEMPLATES = {"template": ["the {class}", "a {class}"]}
# Setting → the settings of a run that has it; without an entry, it is the only one.
COMPANIONS: dict[str, dict[str, Any]] = {
    **{name: {} for name in BASE if name != "backbone"},
    **{name: {**COLUMNS, "dataset": "{root}/table"} for name in COLUMNS},
    **dict.fromkeys(CANDIDATES, CANDIDATES),
    "data_dir": {"dataset": "folder", "data_dir": "{root}/pictures"},
    "labels": {"dataset": "{root}/flat", "labels": "{root}/labels.csv"},
    "hierarchy": {"strategy": "hierarchy", "hierarchy": "{root}/tree.csv"},
    "risk_else": {"risk": 0.3, "risk_else": "schedule"},
    "weights": {"backbone": "sd15", "weights": "{root}/whole"},
    "lora": {"backbone": "{root}/whole", "lora": ["{root}/lora:0.5"]},
    "encoding": {"dtype": "bfloat16", "encoding": "float32"},
    "resolution": {"backbone": "{root}/whole", "resolution": 16},
    "normalize": {"backbone": "{root}/whole", "normalize": "cifar10"},
    "fit_split": {
        "backbone": "nearest-mean",
        "strategy": None,
        "params": {},
        "fit_split": "validation",
    },
    "template": TEMPLATES,
    "template_rule": {**TEMPLATES, "template_rule": "mean"},
    "subtract_null": {"dataset": "captions", "backbone": "painter"}
    | {"strategy": "full", "subtract_null": True},
}
VALUES: dict[str, Any] = {  # where the second value of `PAIRS` does not fit these files
    **{"risk": 0.3, "device": "cpu", "until": "within 0.5 of {stored}"},
    **{"backbone": "{root}/whole", "class_names": "{root}/names.txt"},
    **{"prompts": "{root}/prompts.csv", "noise": "{root}/noise.safetensors"},
}
ALIKE = {"normalize", "weights"}  # name the same pipeline as others do
# Settings that no command of this machine can be run with: the commands are only parsed.
ELSEWHERE = {"revision": "v1", "tf32": True, "executor": "ray", "workers": 2, "ray_address": "auto"}
ELSEWHERE |= {"tracker": "wandb"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the folder of the files that the settings name, and the id of a stored run."""
    import diffusers

    root, rng = tmp_path_factory.mktemp("commands"), np.random.default_rng(0)
    for split in ("test", "train", "validation"):
        for place in [f"{name}/{split}-{i}.png" for name in NAMES for i in "12"]:
            file = root / "pictures" / split / place
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(file)
        columns = {"picture": [picture(i) for i in range(3)], "kind": NAMES}
        write_parquet(
            root / "table" / f"{split}.parquet",
            {**columns, "name": [f"{split} {i}" for i in range(3)]},
        )
    make_folder(root / "flat", *(f"{name}.png" for name in NAMES))
    (root / "labels.csv").write_text(
        "\n".join(["file,label", *(f"{name}.png,{name}" for name in NAMES)])
    )
    (root / "names.txt").write_text("\n".join(f"a {name}" for name in NAMES))
    (root / "prompts.csv").write_text(
        "\n".join(["prompt,classname,classidx", *(f"{n},{n},{i}" for i, n in enumerate(NAMES))])
    )
    (root / "tree.csv").write_text(
        "node,parent,words\nanimal,,an animal\ncat,animal,\ndog,animal,\nfir,,\n"
    )
    save_file({"noise": torch.randn(10, 1, 8, 8)}, root / "noise.safetensors")
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(save_indexed(root / "whole"))
    save_lora(pipe, root / "lora")
    chosen = ("--backbone", "tiny-digits", "--split", "test", "--seed", 1, "--results", root / "r")
    stored = bench("run", root / "pictures", *chosen, "--json")
    assert stored.code == 0, stored.err
    return {"root": str(root), "stored": stored.json["run_id"]}


def filled(value: Any, places: Mapping[str, str]) -> Any:
    """Return a setting's value with the places that it names."""
    if isinstance(value, str) and "{class}" not in value:
        return value.format(**places)
    return [filled(part, places) for part in value] if isinstance(value, list) else value


def settings_of(name: str, places: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a run that has the setting `name`."""
    own = COMPANIONS[name] if name in COMPANIONS else {name: VALUES.get(name, PAIRS[name][1])}
    return {key: filled(value, places) for key, value in {**BASE, **own}.items()}


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
def test_what_is_suggested_for_a_run_is_accepted(
    name: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Captions, "rows", two_images())
    manifest = manifest_of(settings_of(name, places))
    split = manifest.identity.dataset.split
    other = "train" if split == "test" else split  # of data without splits there is no other
    for made in (recording_command, reproducing_command, other_images_command):
        _, *words = shlex.split(made(manifest))
        words = [other if word == "OTHER" else word for word in words]
        assert refusal(shlex.join(words), f"{places['root']}/r") is None, made.__name__


@cache
def refusal(command: str, results: str) -> str | None:
    """Return why a command is refused; None if it is accepted. Many runs suggest the same one."""
    planned = bench(*shlex.split(command), "--results", results, "--json", "--dry-run")
    return None if planned.code == 0 else f"{command}: {planned.err}"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_suggested_for_a_run_of_elsewhere_is_parsed(
    name: str, places: dict[str, str]
) -> None:
    manifest = manifest_of(settings_of("dataset", places))
    manifest = manifest.model_copy(
        update={"config": StoredConfig(**{**manifest.config.plain(), name: ELSEWHERE[name]})}
    )
    for made in (recording_command, reproducing_command, other_images_command):
        _, command, *words = shlex.split(made(manifest))
        chosen = cli.get_command(click.Context(cli), command)
        assert chosen is not None
        chosen.make_context(command, words)
