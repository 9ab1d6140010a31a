"""What cannot be replayed is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.recorded import record, replay
from helpers.refusals import refused
from helpers.runs import store

from bench.recordings.calibrate import calibrate
from bench.recordings.learn import learn
from bench.recordings.recording import open_recording
from bench.recordings.replay import sweep
from bench.reports.page.page import write_report


def test_a_run_without_its_errors_is_refused(recording: Path, tmp_path: Path) -> None:
    without = replay(recording, "race", {}, tmp_path)
    with refused("--strategy full --save-errors"):
        open_recording(tmp_path / without["run_id"])


def test_a_recording_with_missing_cells_is_refused(tmp_path: Path) -> None:
    with refused("cell"):
        open_recording(record(tmp_path, skip=(0,)))


def test_of_one_draw_there_is_nothing_to_try_or_to_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.recorded.N_DRAWS", 1)
    path = record(tmp_path)
    for work in (sweep, partial(learn, what=["order"])):
        with refused("one draw"):
            work(path)
    assert calibrate(path).settings == []
    assert "one draw per image" in " ".join(bench("learn", path).out.split())
    assert bench("sweep", path).code == 2
    write_report([path], tmp_path / "one.html")


def test_of_a_likelihood_no_screen_is_learned(tmp_path: Path) -> None:
    """The advice would be a recording that a likelihood refuses."""
    path = store(tmp_path, [0, 1], [0, 1], scoring={"noise": "seed 0", "reduction": "mean"})
    with refused("gradients"):
        learn(path, ["reach"])
