"""A row of the leaderboard says in words how its run differs."""

from pathlib import Path

import pytest
from helpers.runs import store

from bench.reports.facts import Fact, Mark, assignments, percent_text, points_text, value_text
from bench.reports.leaderboard.board import board_labels, make_boards, row_labels
from bench.reports.leaderboard.ranking import leaderboard
from bench.reports.leaderboard.rows import LeaderboardRow


@pytest.fixture
def row(tmp_path: Path) -> LeaderboardRow:
    store(tmp_path, [0, 1, 2], [0, 1, 1], scoring={"loss": "l2"})
    [only] = leaderboard(tmp_path)
    return only


def test_marks_say_what_distinguishes_a_row(row: LeaderboardRow) -> None:
    assert list(row_labels(row)) == ["zero-shot"]
    changes = {"kind": "subset", "n_total": 1000, "trained_on": "d/train", "failed_samples": 2}
    changed = row.model_copy(
        update={**changes, "settings": {"plan": "grid:0-200"}, "cost_timed": True}
    )
    kinds = row_labels(changed)
    assert list(kinds) == ["subset", "trained", "draws", "timed", "failed"]
    assert "1,000" in kinds["subset"].text and "d/train" in kinds["trained"].text
    assert all(mark.word.isalpha() for mark in kinds.values())


def test_reported_rows_have_numbered_sources(row: LeaderboardRow) -> None:
    reported = [row.model_copy(update={"kind": "reported", "source": source}) for source in "aba"]
    _, marks = board_labels([row, *reported])
    assert marks == [{}, *[{"reported": Mark("reported")}] * 3]
    (board,) = make_boards([row, *reported])
    assert board.sources == ["a", "b"]
    models = [cells[1] for cells in board.table().texts]
    assert models == ["b", "b (1)", "b (2)", "b (1)"]


def test_a_row_is_marked_by_what_it_does_not_share(row: LeaderboardRow) -> None:
    trained = row.model_copy(update={"trained_on": "d/train"})
    failed = row.model_copy(update={"failed_samples": 2, "published": True})
    common, marks = board_labels([row, failed, trained])
    assert common == ["zero-shot unless marked"]
    texts = [[mark.full for mark in of_row.values()] for of_row in marks]
    assert texts == [["yours"], ["2 failed"], ["trained on d/train", "yours"]]
    assert board_labels([row, row]) == (["zero-shot"], [{}, {}])


def test_values_are_written_as_options_take_them(row: LeaderboardRow) -> None:
    assert assignments({"samples": (5, 50), "keep": None, "delta": 0.1}) == "samples=5,50 delta=0.1"
    assert value_text(None) == "–" and value_text((1, 2), separator=" ") == "1 2"
    [board] = make_boards([row])
    table = board.table()
    assert dict(zip(table.head, table.texts[0], strict=True))["cost"] == "50"
    assert percent_text(0.8619, (0.8087, 0.90213)) == "86.2 (80.9–90.2)"
    assert percent_text(0.8619) == "86.2"
    for share, text in (
        (0.9996, "99.96"),
        (0.99996, "99.996"),
        (0.0004, "0.04"),
        (1 - 1e-16, "100.0"),
    ):
        assert percent_text(share) == text
    assert percent_text(1.0, (0.99996, 1.0)) == "100.0 (100.0–100.0)" and percent_text(0.0) == "0.0"
    for p, text in ((0.0497, "0.05"), (0.05, "0.05"), (0.05002, "0.05002"), (1e-9, "1e-09")):
        assert Fact("", p, "p").text == text
    costs = (0.00052, 1.0, 12.34, 123.4, 201_234.5)
    assert [Fact("", cost, "cost").text for cost in costs] == [
        "0.00052",
        "1",
        "12.3",
        "123",
        "201,234",
    ]
    assert points_text(0.0139, (-0.005, 0.0333)) == "+1.4 (−0.5 to +3.3)"
    assert points_text(-0.0004, (-0.001, -0.0)) == "+0.0 (−0.1 to +0.0)"
