"""What a day's work shows fits a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.runs import store

RACE, PROBE = "ucmerced-tiny-landuse-race-a8ce4419", "ucmerced-linear-probe-full-69e2383a"


def lines(*words: object) -> list[str]:
    done = bench(*words, COLUMNS="80")
    assert done.code == 0, done.err
    printed = [line.rstrip() for line in done.out.splitlines()]
    assert all(len(line) <= 80 for line in printed if "bench " not in line)  # commands are whole
    return printed


def test_a_newcomer_sees_the_published_runs_and_can_compare_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(lines("leaderboard")) <= 60
    shown = lines("compare", RACE, PROBE)
    assert len(shown) <= 45 and sum("kind of model" in line for line in shown) == 1
    assert not any("unset" in line for line in shown)


def test_eighteen_runs_take_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(18):
        calibrated = {"calibrated": "f" * 64} if seed % 2 else {}
        store(
            tmp_path / "results",
            [0, 1, 2],
            [0, 1, 2],
            seed=seed,
            config={"dataset": "d", **calibrated},
        )
    shown = lines("runs")
    assert len(shown) <= 24 and not any("f" * 10 in line for line in shown)
