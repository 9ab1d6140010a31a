"""The head of a report: its question, and what its answer claims."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import store

from bench.reports.leaderboard.board import make_boards
from bench.reports.leaderboard.ranking import rank_boards
from bench.reports.leaderboard.rows import board_row
from bench.reports.page.page import write_report
from bench.reports.page.sections import BoardPart
from bench.reports.run_view import RunView, read_decided_run
from bench.store.runs import read_run

LABELS = [0, 1, 2] * 20
Make = Callable[..., RunView]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Store a run of which the first images are wrong, and read it."""

    def run(backbone: str, wrong: int, **more: Any) -> RunView:
        predictions = [(y + 1) % 3 if i < wrong else y for i, y in enumerate(LABELS)]
        path = store(tmp_path, LABELS, predictions, backbone=backbone, **more)
        return read_decided_run(read_run(path))

    return run


def answered(runs: list[RunView]) -> list[BoardPart]:
    return [BoardPart(board, {}) for board in make_boards(rank_boards(map(board_row, runs)))]


def test_rivals_are_compared_on_the_images_of_both(make: Make, tmp_path: Path) -> None:
    """20 of 20 images are no better than 58 of 60: on the same 20, both are right."""
    noisy: dict[str, Any] = {"strategy": "race", "scoring": {"loss": "l2"}}
    noisy["warnings"] = ["The model does not fit."]
    few = store(tmp_path, LABELS[:20], LABELS[:20], backbone="few", n_total=60, **noisy)
    wrong = [*LABELS[:-2], *((y + 1) % 3 for y in LABELS[-2:])]
    most = store(tmp_path, LABELS, wrong, backbone="most")
    runs = [read_decided_run(read_run(path)) for path in (few, most)]
    (answer,) = answered([*runs, make("poor", 40)])
    assert answer.best.row.backbone == "few"
    assert answer.rivals == ["B"]
    page = tmp_path / "page.html"
    write_report([few, most], page, most_images=0)
    assert "Not told apart from it on the images of both: B." in page.read_text()
    assert "The model does not fit." in page.read_text()
    shown = re.sub(r"<(style|script)\b.*?</\1>", "", page.read_text(), flags=re.S)
    assert "<code>bench run … --audit 30 --again 60</code>" in shown and "`" not in shown


def test_runs_that_are_worse_are_no_rivals(make: Make) -> None:
    (answer,) = answered([make("best", 0), make("close", 2), make("poor", 40)])
    assert answer.best.row.backbone == "best"
    assert answer.rivals == ["B"]


def test_of_equal_accuracies_that_of_more_images_is_the_answer(make: Make) -> None:
    (answer,) = answered([make("best", 0)])
    few = answer.best.row.model_copy(update={"n_samples": 20})
    lines = [replace(answer.best, row=few), answer.best]
    chosen = replace(answer, board=replace(answer.board, lines=lines))
    assert chosen.best is lines[1]


def test_a_run_that_is_alone_is_equal_to_none(make: Make) -> None:
    (answer,) = answered([make("best", 0)])
    assert answer.best.row.rank is None and answer.rivals == []
