"""What settings stand for lies beside them, and the manifest says what a run is."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.given import make_folder
from helpers.refusals import refused

import bench
from bench.discovery.loading import load_plugins
from bench.running.parts.settings import Names, make_config
from bench.running.parts.texts import make_prompts
from bench.running.prepare import prepare, resolve
from bench.store.formats.documents import Manifest


def manifest(**settings: Any) -> Manifest:
    config = {"dataset": "digits", "strategy": "full", "params": {"draws": 4}}
    return prepare(make_config({**config, **settings})).manifest


def test_a_limit_and_a_shard_choose_samples_and_the_shards_hold_each_one_once() -> None:
    asked = manifest(limit=7).samples
    parts = [manifest(limit=7, shard=f"{n}/3") for n in (1, 2, 3)]
    assert sorted(name for part in parts for name in part.samples) == sorted(asked)
    assert {part.part.count for part in parts if part.part} == {3}
    with refused("only 2 images"):
        manifest(limit=2, shard="3/3")


def test_groups_that_changed_since_a_run_cause_a_warning_and_change_no_id(tmp_path: Path) -> None:
    make_folder(tmp_path, "a/1.png", "b/2.png")
    declaration = tmp_path / "pets.toml"
    declaration.write_text('name = "my-pets"\nsource = "list.csv"\ngroups = ["place"]\n')
    runs = []
    for place in ("land", "land", "water"):
        lines = f"file,label,place\na/1.png,a,{place}\nb/2.png,b,land\n"
        (tmp_path / "list.csv").write_text(lines)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = bench.run(str(declaration), backbone="random", results=str(tmp_path / "runs"))
        runs.append((run["run_id"], any("groups of images" in str(w.message) for w in caught)))
    assert [changed for _, changed in runs] == [False, False, True]
    assert len({run_id for run_id, _ in runs}) == 1


def test_only_a_run_that_linearises_has_a_price() -> None:
    assert manifest().linearisation_cost is None
    assert manifest(strategy="full-linearised").linearisation_cost


def test_operations_are_in_the_manifest_and_in_no_id(tmp_path: Path) -> None:
    assert manifest().evaluation_flop == 67.9e6  # declared with the included weights
    assert manifest(backbone="random").evaluation_flop is None
    run = bench.run(
        "digits", params={"draws": 4}, limit=2, results=tmp_path, strategy="full", progress=False
    )
    assert run.summary.cost.flop_per_image == 4 * 10 * 67.9e6
    assert run.folder.name == manifest(limit=2).run_id


def resolved(**settings: Any) -> Names:
    return resolve(make_config({"dataset": "digits", **settings}))


def test_settings_stay_as_they_were_read_and_the_manifest_holds_what_they_stand_for() -> None:
    run = resolved()
    assert (run.config.backbone, run.config.dtype, run.config.strategy) == (None, None, None)
    assert (run.backbone.name, run.precision.dtype) == ("tiny-digits", "float32")
    recorded = run.recorded_settings()
    assert (recorded["backbone"], recorded["dtype"]) == ("tiny-digits", "float32")
    assert set(recorded) == set(run.config.model_dump())


def test_a_path_in_place_of_a_name(pipelines: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    run = resolved(dataset=str(tmp_path), backbone=str(pipelines["sd15"]))
    assert (run.config.dataset, run.config.weights) == (str(tmp_path), None)
    assert (run.data.name, run.data.data_dir) == ("folder", str(tmp_path))
    assert run.source.weights == str(pipelines["sd15"]) and run.source.trained_on == "unknown"
    assert run.source.name == pipelines["sd15"].name


def test_an_explicit_template_is_no_default_even_if_it_equals_the_backbone_s() -> None:
    """A backbone with a template of its own reads the dataset's labels unless one is given."""
    text, classes = "the number {class}", tuple("0123456789")
    spec = replace(load_plugins().backbones.get("tiny-digits"), template=text, labels="index")
    labels = {"index": tuple(f"n{digit}" for digit in classes)}
    labelled = replace(load_plugins().datasets.get("digits"), labels=labels)
    for given, first in ((None, "n0"), (text, "the number 0")):
        run = resolved(template=given)
        run = replace(run, data=replace(run.data, spec=labelled))
        run = replace(run, source=replace(run.source, spec=spec))
        prompts = make_prompts(run.config, run.dataset, run.source, run.decider, classes)
        assert prompts.texts[0] == first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "@aerial"}, "@aerial"),
        ({"template": "a {class}", "prompts": "p.csv"}, "--prompts"),
        ({"labels": "labels.csv"}, "--labels"),
        ({"backbone": "./somewhere", "weights": "else"}, "--weights"),
        ({"backbone": "folder"}, "--weights FOLDER"),
        ({"backbone": "random", "normalize": "half"}, "--normalize"),
        ({"strategy": "race", "hierarchy": "tree.csv"}, "'race'"),
        ({"revision": "v1"}, "--revision v1"),
        ({"revision": "v1", "backbone": "random"}, "--revision v1"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with refused(message):
        prepare(make_config({"dataset": "digits", **settings}))
