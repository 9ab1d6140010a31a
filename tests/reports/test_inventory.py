"""The list of stored runs: complete, incomplete and unreadable ones, and what tells them apart."""

from __future__ import annotations

from pathlib import Path

from helpers.command import bench
from helpers.recorded import N_CLASSES, N_DRAWS, N_IMAGES, record
from helpers.runs import store

from bench.reports.inventory import read_row


def test_a_run_without_a_decision_has_no_accuracy(tmp_path: Path) -> None:
    path = store(tmp_path, [0], [0], complete=False)
    (path / "samples.jsonl").write_text("")
    row = read_row(path)
    assert (row.n_samples, row.accuracy) == (0, None)


def test_recordings_are_listed_with_their_size_and_other_runs_are_not(tmp_path: Path) -> None:
    path = record(tmp_path)
    store(tmp_path, [0, 1], [0, 1])
    shared = tmp_path / "shared"
    assert bench("export", path, "--format", "errors", "--out", shared).code == 0
    done = bench("list", "recordings", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    own, exported = sorted(done.json, key=lambda row: str(row["path"]) == str(shared))
    size = sum(file.stat().st_size for file in (path / "errors").iterdir())
    assert (own["bytes"], own["bytes_per_image"]) == (size, size / N_IMAGES)
    assert (own["prompts"], own["draws"], own["images"]) == (N_CLASSES, N_DRAWS, N_IMAGES)
    assert exported["run_id"] == own["run_id"] and exported["bytes"] < size
    assert "per image" in bench("list", "recordings", "--results", tmp_path).out
    empty = bench("list", "recordings", "--results", tmp_path / "nothing")
    assert empty.code == 0 and "--save-errors" in empty.out
