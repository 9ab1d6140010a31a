"""Looks at a test split are counted, and stay counted when a run is deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

from helpers.command import bench
from helpers.runs import store

from bench.store.looks import LOOKS, count_looks


def test_looks_are_runs_with_settings_of_their_own(tmp_path: Path) -> None:
    labels = [0, 1, 2]
    for seed in (0, 1):
        store(tmp_path, labels, labels, seed=seed)
    store(tmp_path, labels, labels, split="validation")
    store(tmp_path, labels, labels, seed=7, complete=False)
    assert count_looks([tmp_path, tmp_path / "absent"]) == {("d", "test", "f" * 64): 2}


def test_a_deleted_run_was_a_look_all_the_same(tmp_path: Path) -> None:
    command = ("run", "digits", "--backbone", "majority", "--results", tmp_path)
    done = bench(*command, "--json").json
    bench(*command, "--fresh")
    shutil.rmtree(tmp_path / done["run_id"])
    assert list(count_looks([tmp_path]).values()) == [1]
    bench(*command, "--seed", 1)
    assert list(count_looks([tmp_path]).values()) == [2]
    with (tmp_path / LOOKS).open("a") as file:
        file.write('{"torn')
    assert list(count_looks([tmp_path]).values()) == [2]
