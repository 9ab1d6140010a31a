"""The command as a whole."""

from __future__ import annotations

from pathlib import Path

from helpers.command import bench


def test_mistyped_commands_and_runs_are_suggested(tmp_path: Path) -> None:
    done = bench("lst", "datasets")
    assert done.code == 2 and "'list'" in done.err
    done = bench("show", "nothing", "--results", tmp_path)
    assert done.code == 2 and "There is no run 'nothing'" in done.err
    assert bench("leaderboard", "--results", tmp_path / "none").code == 2
