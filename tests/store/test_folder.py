"""A run's folder: what is found below the results, what is undecided, and how manifests join."""

import os
from pathlib import Path
from typing import Any

from helpers.refusals import refused
from helpers.runs import a_manifest, store

from bench.store.folder import (
    LATEST,
    MANIFEST,
    find_run,
    holds_shards,
    list_runs,
    missing_samples,
    read_manifest,
    shard_folder,
    shards_of,
    undecided_samples,
    whole_manifest,
)


def test_runs_are_found_at_any_depth_and_their_own_folders_are_not_entered(tmp_path: Path) -> None:
    first = store(tmp_path, [0, 1], [0, 1])
    second = store(tmp_path / "study" / "cells", [0, 1], [0, 1], seed=1)
    inner = first / "errors" / "inner"
    inner.mkdir(parents=True)
    (inner / MANIFEST).write_text("{}")
    (tmp_path / ".adding-x").mkdir()
    (tmp_path / ".adding-x" / MANIFEST).write_text("{}")
    assert list_runs(tmp_path) == sorted([first, second])


def test_a_run_is_found_by_id_or_by_path(tmp_path: Path) -> None:
    run = store(tmp_path, [0], [0])
    published = store(tmp_path / "published", [0], [0], seed=1)
    assert find_run(run.name, str(tmp_path)) == find_run(str(run), "elsewhere") == run
    assert find_run(published.name, str(tmp_path)) == published
    with refused("nothing"):
        find_run("nothing", str(tmp_path))


def test_a_run_is_found_by_a_part_of_its_id_or_as_the_latest(tmp_path: Path) -> None:
    runs = [store(tmp_path / str(seed), [0], [0], seed=seed) for seed in (0, 1)]
    results = str(tmp_path)
    os.utime(runs[0] / MANIFEST, ns=(2**62, 2**62))
    assert find_run(LATEST, results) == runs[0]
    assert find_run(runs[1].name[-8:], results) == runs[1]
    with refused("2 runs", runs[1].name):
        find_run(runs[1].name[:-8], results)
    with refused("Did you mean"):  # a setting that is kept has the whole id
        find_run(runs[1].name[-8:], results, exact=True)
    with refused("Did you mean", runs[1].name):
        find_run(runs[1].name.replace("full", "fall"), results)


def test_shards_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for index in (10, 2, 1):
        shard_folder(tmp_path, index, 16).mkdir(parents=True)
    (tmp_path / "shards" / "others").mkdir()
    assert [path.name for path in shards_of(tmp_path)] == ["1-of-16", "2-of-16", "10-of-16"]
    assert holds_shards(tmp_path) and not holds_shards(tmp_path / "shards")


def test_what_is_undecided_are_failed_images_and_those_without_the_errors_asked_for(
    tmp_path: Path,
) -> None:
    path = store(tmp_path, [0, 1, 2], [0, None, 2], complete=False)
    manifest = read_manifest(path)
    ids = [*manifest.samples, "s0003"]
    assert undecided_samples(path, manifest, ids, save_errors=False) == ["s0001", "s0003"]
    assert undecided_samples(path, manifest, ids, save_errors=True) == ids
    assert missing_samples(path, manifest, save_errors=False) == ["s0001"]
    assert missing_samples(path, a_manifest(manifest.samples, seed=1), save_errors=False) is None
    assert missing_samples(tmp_path / "none", manifest, save_errors=False) is None


def test_the_manifest_of_a_whole_run_says_nothing_of_a_shard() -> None:
    shard = a_manifest(["a", "c"], config={"dataset": "d", "limit": None, "shard": "1/2"})
    content: Any = whole_manifest(shard, samples=["a", "b", "c", "d"]).plain()
    assert content["samples"] == ["a", "b", "c", "d"] and content["config"]["shard"] is None
    assert not content.keys() & {"part", "asked"}
