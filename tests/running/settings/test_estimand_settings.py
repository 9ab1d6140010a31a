"""The estimand's settings from the command line to the record, on a few digits."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench

from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins

FULL = ("--strategy", "full", "--set", "draws=8")


def run(results: Path, *options: object) -> Any:
    done = bench("run", "digits", "--limit", 4, "--results", results, "--json", *FULL, *options)
    assert done.code == 0, done.err
    return done.json


@pytest.mark.parametrize(
    ("options", "each"),
    [
        (("--guidance", "2"), 1.1),
        (("--template", "a {class}", "--template", "digit {class}", "--template-rule", "mean"), 2),
        (("--noise-per", "image", "--latent", "sample", "--loss", "norm"), 1),
    ],
)
def test_what_a_cell_costs(options: tuple[str, ...], each: float, tmp_path: Path) -> None:
    found = run(tmp_path, *options)
    assert found["cost"]["evaluations_per_image"] == round(80 * each)
    plan = bench("run", "digits", "--dry-run", "--json", *FULL, *options).json
    assert plan["evaluations_per_image"] == round(80 * each)


def test_a_guided_recording_is_replayed_at_the_price_it_was_made_at(tmp_path: Path) -> None:
    guided = ("--guidance", "2", "--results", tmp_path)
    recorded = run(tmp_path, *guided, "--save-errors")["run_id"]
    settings = ("samples=2,8", "keep=3,1", "draws=8")
    common = ("--strategy", "adaptive", *(w for s in settings for w in ("--set", s)))
    live = bench("run", "digits", "--limit", 4, *common, *guided, "--json").json
    again = bench("replay", recorded, *common, "--results", tmp_path, "--json").json
    assert again["metrics"] == live["metrics"]
    assert again["cost"]["evaluations"] == live["cost"]["evaluations"]
    assert live["cost"]["evaluations_per_image"] == (10 + 1) * 2 + (3 + 1) * 6


def test_weights_are_learned_from_another_split(tmp_path: Path) -> None:
    there = run(tmp_path, "--split", "train", "--save-errors")
    here = run(tmp_path, "--save-errors")
    learned = ("--weighting", f"learned:{there['run_id']}")
    assert run(tmp_path, *learned)["backbone"]["trained_on"] == "digits/train"
    same = ("--weighting", f"learned:{here['run_id']}")
    for options, said in ((same, "split"), ((*learned, "--loss", "l1"), "--loss")):
        done = bench("run", "digits", "--limit", 4, "--results", tmp_path, *FULL, *options)
        assert done.refuses(said)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.csv").write_text("level,weight\n1,1\n2000,1\n")
    (tmp_path / "templates.txt").write_text("a {class}\nnothing\n")
    cases = (
        (("--weighting", tmp_path / "weights.csv"), "level 2000"),
        (("--template", tmp_path / "templates.txt"), "templates.txt:2"),
        (("--weighting", "exp"), "--weighting"),
        (("--levels", "3,2"), "--levels"),
        (("--subtract-null",), "--subtract-null"),
    )
    for options, said in cases:
        done = bench("run", "digits", "--results", tmp_path / "results", *FULL, *options)
        assert done.refuses(said), done.err
    assert not (tmp_path / "results").exists()


def test_what_a_model_cannot_do_is_refused_before_it_is_made(
    tmp_path: Path, pipelines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, target in (("turning", "Turning"), ("no-null", "SmallFlow")):
        spec = BackboneSpec(name=name, target=f"helpers.flows:{target}", summary="")
        monkeypatch.setitem(load_plugins().backbones._specs, name, spec)
    folder = tmp_path / "pipeline"
    shutil.copytree(pipelines["sd15"], folder)
    for file in folder.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])  # its tensors are damaged, and not read
    config = folder / "scheduler" / "scheduler_config.json"
    betas = [0.01] * 500 + [-0.01] + [0.01] * 499
    config.write_text(json.dumps({**json.loads(config.read_text()), "trained_betas": betas}))
    cases = (
        (("--backbone", "turning"), "levels 1 and 2"),
        (("--backbone", folder), "must fall"),
        (("--backbone", "no-null", "--guidance", 2), "encode_null()"),
    )
    for options, said in cases:
        done = bench("run", "digits", "--results", tmp_path / "results", *FULL, *options)
        assert done.refuses(said), done.err
    assert not (tmp_path / "results").exists()
