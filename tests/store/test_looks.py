"""Looks at a test split are counted, and stay counted when a run is deleted."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.refusals import warned
from helpers.runs import a_manifest, store

from bench.store.runs import LOOKS, count_test_set_uses, record_test_set_use


def test_looks_are_runs_with_settings_of_their_own(tmp_path: Path) -> None:
    labels = [0, 1, 2]
    for seed in (0, 1):
        store(tmp_path, labels, labels, seed=seed)
    store(tmp_path, labels, labels, split="validation")
    store(tmp_path, labels, labels, seed=7, complete=False)
    assert count_test_set_uses([tmp_path, tmp_path / "absent"]) == {("d", "test", "f" * 64): 2}


def test_a_deleted_run_was_a_look_all_the_same(tmp_path: Path) -> None:
    command = ("run", "digits", "--backbone", "random", "--results", tmp_path, "--json")
    done = bench(*command).json
    bench(*command, "--fresh")
    shutil.rmtree(tmp_path / done["run_id"])
    assert list(count_test_set_uses([tmp_path]).values()) == [1]
    bench(*command, "--set", "seed=1")
    assert list(count_test_set_uses([tmp_path]).values()) == [2]
    with (tmp_path / LOOKS).open("a") as file:
        file.write('{"torn')
    assert list(count_test_set_uses([tmp_path]).values()) == [2]


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_a_regular_file_inside_the_folder_is_appended_to(tmp_path: Path, kind: str) -> None:
    outside, results = tmp_path / "outside", tmp_path / "results"
    results.mkdir()
    if kind == "pipe":
        os.mkfifo(results / LOOKS)
    elif kind == "folder":
        (results / LOOKS).mkdir()
    else:
        (results / LOOKS).symlink_to(outside)
    if kind == "link":
        outside.write_text("mine\n")
    with warned("looks.jsonl"):
        record_test_set_use(results, a_manifest(["s0"]))
    assert not outside.exists() if kind != "link" else outside.read_text() == "mine\n"


def test_a_file_of_looks_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / LOOKS).open("wb") as file:
        file.truncate(10**12)  # sparse
    assert count_test_set_uses([tmp_path]) == {}
