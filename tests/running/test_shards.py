"""Shards are fair parts of a run, resume by themselves, and merged are the run of one process."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.interrupted import killed
from helpers.scoring import LIMIT, same, timeless

from bench.inputs.subsets import Shard, select_subset
from bench.store.cells import part_path, read_cells
from bench.store.folder import read_manifest

PARTS = 3


def command(results: Path, *more: object) -> list[object]:
    cheap = ["--strategy", "full", "--set", "draws=2", "--limit", LIMIT, "--save-errors"]
    return ["run", "digits", "--results", results, *cheap, *more]


def shard(results: Path, index: int, *more: object) -> list[object]:
    return command(results, "--shard", f"{index}/{PARTS}", *more)


def half_done(shard: Path) -> None:
    """Leave what a kill leaves in the middle of the third image's line."""
    lines = (shard / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (shard / "samples.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:50])
    (shard / "summary.json").unlink()
    for line in lines[2:]:
        part_path(shard / "errors", json.loads(line)["sample_id"]).unlink()


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("one")
    done = bench(*command(results, "--json"))
    return Path(done.json["results_dir"])


@pytest.mark.parametrize("limit", [None, 60])
def test_shards_are_a_partition_and_balanced(limit: int | None) -> None:
    labels = [c for c in range(5) for _ in range(40)]
    ids = [f"s{i}" for i in range(200)]
    label_of = dict(zip(ids, labels, strict=True))
    parts = [select_subset(ids, labels, limit, Shard(i, 4)) for i in range(1, 5)]
    assert sorted(i for part in parts for i in part) == sorted(select_subset(ids, labels, limit))
    for part in parts:
        assert len(part) == (limit or 200) / 4
        assert part == [i for i in ids if i in part]  # in the order of the data
        counts = Counter(label_of[i] for i in part)
        assert all(abs(counts[c] - len(part) / 5) <= 2 for c in range(5))
        nested = select_subset(ids, labels, None, Shard(parts.index(part) + 1, 4))
        assert set(part) <= set(nested)


@pytest.mark.long
def test_merged_shards_are_the_run_of_one_process(one_process: Path, tmp_path: Path) -> None:
    """One of them is cut short and resumes; before that, a merge says what is missing."""
    run = tmp_path / one_process.name
    for index in (1, 2, 3):
        assert bench(*shard(tmp_path, index, "--json")).code == 0
    half_done(run / "shards" / "2-of-3")
    listed = json.loads(bench("runs", "--results", tmp_path, "--json").out)
    assert [(r["run_id"], r["shard"], r["n_samples"], r["n_asked"]) for r in listed] == [
        (one_process.name, f"{index}/3", done, 4) for index, done in ((1, 4), (2, 2), (3, 4))
    ]
    assert "shard 2/3" in bench("runs", "--results", tmp_path).out
    merge = ("results", "merge", one_process.name, "--results", tmp_path)
    refused = bench(*merge)
    assert refused.refuses("10 of 12")
    assert "has decided 2 of 4" in refused.err and len(refused.err.splitlines()) == 1
    assert not (run / "manifest.json").exists()

    resumed = bench(*shard(tmp_path, 2), "--json").json
    assert resumed["run_id"] == one_process.name and resumed["dataset"]["n_samples"] == 4
    done = bench(*merge, "--json")
    assert done.code == 0, done.err
    wanted = json.loads((one_process / "summary.json").read_text())
    assert done.json["metrics"] == wanted["metrics"] and done.json["status"] == "complete"
    assert same(timeless(run), timeless(one_process))
    mine, theirs = read_manifest(run), read_manifest(one_process)
    assert mine.samples == theirs.samples and mine.identity == theirs.identity
    assert mine.part is None and mine.config.limit == LIMIT
    for name in mine.samples:
        shape = (len(mine.prompts), mine.draws or 0)
        found, known = (read_cells(r / "errors", name, shape) for r in (run, one_process))
        np.testing.assert_allclose(found, known, atol=1e-6)
    listed = json.loads(bench("runs", "--results", tmp_path, "--json").out)
    assert [(r["shard"], r["n_samples"], r["status"]) for r in listed] == [(None, 12, "complete")]

    before = {f: f.read_bytes() for f in run.glob("*.json*")}
    assert bench(*merge).code == 0
    assert {f: f.read_bytes() for f in before} == before
    whole = bench(*command(tmp_path, "--json"))
    assert whole.json["resumed"] == "complete"  # the same command, without a shard
    assert part_path(run / "errors", mine.samples[0]).is_file()
    replay = ("replay", run / "shards" / "1-of-3", "--strategy", "race", "--set", "draws=2")
    done = bench(*replay, "--results", tmp_path / "replays", "--json")
    assert done.code == 0, done.err
    replayed = read_manifest(Path(done.json["results_dir"]))
    assert replayed.part is None and replayed.samples == read_manifest(replay[1]).samples


@pytest.mark.slow
def test_a_killed_shard_resumes(one_process: Path, tmp_path: Path) -> None:
    """A real kill in a process of its own."""
    arguments = [str(word) for word in shard(tmp_path, 2)]
    assert killed(arguments, 2).code == -signal.SIGKILL
    path = tmp_path / one_process.name / "shards" / "2-of-3"
    assert len(timeless(path)) == 2
    assert bench(*arguments).code == 0
    wanted = timeless(one_process)
    assert len(timeless(path)) == 4
    assert same(timeless(path), {name: wanted[name] for name in timeless(path)})


@pytest.mark.parametrize("wrong", ["17/16", "0/4", "x", "3", "-1/4", "1/4/2", "1/0", ""])
def test_what_is_no_shard(wrong: str, tmp_path: Path) -> None:
    done = bench("run", "digits", f"--shard={wrong}", "--results", tmp_path)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "--shard" in done.err and not list(tmp_path.iterdir())


def test_more_shards_than_images(tmp_path: Path) -> None:
    done = bench("run", "digits", "--shard", "3/4", "--limit", "2", "--results", tmp_path)
    assert done.refuses("only 2 images")
    assert not list(tmp_path.iterdir())


def test_a_plan_counts_the_images_of_the_shard(tmp_path: Path) -> None:
    plan: Any = bench(*shard(tmp_path, 1), "--dry-run", "--json").json
    assert plan["images"] == 4
