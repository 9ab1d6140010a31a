"""`--again N`: images decided a second time with other noise, beside records that do not change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench

from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.running.second_runs import other_noise, prepare_again
from bench.store.folder import read_records
from bench.store.summary import Repeated

RUN: tuple[Any, ...] = ("run", "digits", "--limit", 8, "--set", "draws=8", "--batch-size", 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    assert bench(*RUN, "--results", results).code == 0
    return next(results.glob("digits-*"))


def test_it_is_counted_and_changes_no_record(folder: Path) -> None:
    kept = ("samples.jsonl", "manifest.json", "summary.json")
    before = {name: (folder / name).read_bytes() for name in kept}
    found = bench(*RUN, "--results", folder.parent, "--again", 5, "--json").json
    again = Repeated.model_validate(found["again"])
    assert found["run_id"] == folder.name and (again.images, again.of) == (5, 8)
    assert again.evaluations > 5 * 10 and again.seed != 0
    assert {name: (folder / name).read_bytes() for name in kept} == before
    stored = json.loads((folder / "again.json").read_text())
    assert {name: stored.get(name) for name in found["again"]} == found["again"]
    more = bench(*RUN, "--results", folder.parent, "--again", 4, "--json").json
    assert more["again"] == found["again"]  # five are more than four: nothing is scored
    assert "decided again" in bench("show", folder).out
    assert bench(*RUN, "--results", folder.parent, "--fresh", "--json").code == 0
    assert not (folder / "again.json").exists()


def test_every_image_has_noise_of_its_own_and_the_answers_are_those_of_such_a_run(
    tmp_path: Path,
) -> None:
    config = make_config({"dataset": "digits", "params": {"draws": 2}, "limit": 20})
    first = prepare(config.model_copy(update={"strategy": "uniform", "results": str(tmp_path)}))
    other = prepare_again(first, other_noise(first))
    assert other.config.noise_per == "image" and other.manifest.samples == first.manifest.samples
    assert other_noise(first).seed == other.config.seed
    command = ("run", "digits", "--strategy", "uniform", "--set", "draws=2", "--limit", 20)
    ours = bench(*command, "--again", 20, "--results", tmp_path, "--json").json
    seed = ("--seed", other.config.seed, "--noise-per", "image")
    theirs = bench(*command, *seed, "--results", tmp_path, "--json").json
    answers = [read_records(Path(run["results_dir"])) for run in (ours, theirs)]
    said = [{name: line["prediction"] for name, line in records.items()} for records in answers]
    changed = sorted(name for name, answer in said[0].items() if said[1][name] != answer)
    assert changed and ours["again"]["changed"] == changed
    assert ours["again"]["expected"] == len(changed)


def test_a_stated_risk_is_decided_again_with_the_settings_that_it_chose(tmp_path: Path) -> None:
    """No calibration is of the second seed, so its parameters are named instead."""
    settings = {"dataset": "digits", "strategy": "race", "results": str(tmp_path), "limit": 5}
    first = prepare(make_config({**settings, "params": {"draws": 8, "first": 2, "delta": 0.1}}))
    config = first.config.model_copy(update={"risk": 0.02, "params": {"draws": 8}})
    changed = replace(first, content=first.content.naming(config=config))
    other = prepare_again(changed, other_noise(changed))
    assert other.config.risk is None
    assert other.names.decider.parameters == first.names.decider.parameters


def test_the_plan_counts_them() -> None:
    asked: tuple[tuple[Any, ...], ...] = ((), ("--again", 5), ("--again", 99))
    plans = [bench(*RUN, *more, "--dry-run", "--json").json for more in asked]
    each = plans[0]["evaluations_per_image"]
    assert [plan["evaluations"] for plan in plans] == [8 * each, 13 * each, 16 * each]
    assert [plan["images_again"] for plan in plans] == [None, 5, 8]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--backbone", "majority"), "majority"),
        (("--noise", "bank.npy"), "--noise"),
        (("--shard", "1/2"), "shards"),
        (("--again", "0"), "--again"),
    ],
)
def test_it_is_refused_where_it_means_nothing(
    more: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    done = bench("run", "digits", "--again", 5, *more, "--results", tmp_path)
    assert done.refuses(reason) and not list(tmp_path.iterdir())
