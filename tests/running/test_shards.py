"""Shards are fair parts of a run, resume by themselves, and merged are the run of one process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.scoring import LIMIT

from bench.inputs.subsets import Shard, select_subset

PARTS = 3


def command(results: Path, *more: object) -> list[object]:
    cheap = ["--strategy", "full", "--set", "draws=2", "--limit", LIMIT, "--save-errors"]
    return ["run", "digits", "--results", results, *cheap, *more]


def shard(results: Path, index: int, *more: object) -> list[object]:
    return command(results, "--shard", f"{index}/{PARTS}", *more)


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
