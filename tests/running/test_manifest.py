"""The manifest: what a run is, and which samples were asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from helpers.given import make_folder
from helpers.refusals import refused

import bench
from bench.running.prepare import prepare
from bench.running.settings import make_config
from bench.store.documents import Manifest


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
