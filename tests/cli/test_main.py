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


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    for command in ("runs", "leaderboard", "report"):
        done = bench(command, "--results", "a\0b")
        assert done.code == 2 and "Unexpected" not in done.err
    assert len(bench("show", "x" * 5000, "--results", tmp_path).err) < 400
