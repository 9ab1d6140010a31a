"""Boards and figures of a report agree with values by hand and mix nothing incomparable."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from helpers.reporting import N_DRAWS

from bench.reports.figures.cost import board_panel, pareto_front
from bench.reports.figures.plots import errors_by_timestep
from bench.reports.leaderboard.board import Board, letter_keys, make_boards
from bench.reports.leaderboard.ranking import leaderboard, rank_boards
from bench.reports.leaderboard.rows import board_row, reported_rows
from bench.reports.run_view import read_decided_run, read_view
from bench.store.runs import read_run
from bench.store.shipped import shipped_folder


def test_errors_by_timestep_by_hand(stored: Path) -> None:
    run = read_decided_run(read_run(stored / "results" / "zero"))
    curves = errors_by_timestep(run)
    assert curves is not None and curves.n_images == 30
    assert curves.timestep == pytest.approx(25 + 50 * np.arange(N_DRAWS), abs=1)
    # The errors that `store_run` made up, made up again.
    gaps = []
    labels = run.decided.labels.tolist()
    for position in range(30):
        rng = np.random.default_rng(position)
        errors = (0.5 + 0.05 * rng.standard_normal((3, N_DRAWS))).astype(np.float64)
        label = labels[position]
        errors[label] -= 0.02
        wrong = min((c for c in range(3) if c != label), key=lambda c: errors[c].mean())
        gaps.append(errors[wrong] - errors[label])
    assert curves.gap == pytest.approx(np.mean(gaps, axis=0), abs=1e-6)
    assert curves.gap_stderr == pytest.approx(np.std(gaps, axis=0, ddof=1) / 30**0.5, abs=1e-6)
    assert errors_by_timestep(read_decided_run(read_run(stored / "results" / "trained"))) is None


def board_of(results: Path, *names: str) -> Board:
    rows = [board_row(read_view(results / name)) for name in names]
    [board] = make_boards(rank_boards([*rows, *reported_rows(results / "reported.json")]))
    return board


def test_ranks_and_fronts_never_mix_what_does_not_compare(stored: Path) -> None:
    board = board_of(stored / "results", "zero", "trained", "subset", "replayed")
    ranks = {line.row.run_id: line.row.rank for line in board.lines}
    alone = ("zero", "trained", "subset", "replayed", None)  # each in its kind, or in none
    assert ranks == {**dict.fromkeys(alone), "replayed": ranks["replayed"]}
    assert ranks["replayed"]  # as if it were added to the zero-shot run
    accuracies = [line.row.accuracy for line in board.lines]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [line.key for line in board.lines] == list("ABCDE")
    panel = board_panel(board)
    assert panel is not None and len(panel.points) == 5
    known = [point for point in panel.points if point.cost is not None]
    for best in pareto_front(panel.points):
        better = [p for p in known if (p.cost or 0) <= (best.cost or 0) and p.value > best.value]
        assert not better
    keys = list(islice(letter_keys(), 703))
    assert [keys[i] for i in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


def test_costs_are_counted_in_operations_or_seconds_on_request() -> None:
    rows = leaderboard([shipped_folder()], "digits")
    for currency, name in (("flop", "TFLOP"), ("seconds", "s")):
        for board in make_boards(rows, currency=currency):  # type: ignore[arg-type]
            table = board.table()
            column = table.head.index(name)
            for line, texts in zip(board.lines, table.texts, strict=True):
                row = line.row
                value = row.seconds_per_image
                if currency == "flop":
                    denoiser = row.backbone == "tiny-digits"
                    value = (row.cost or 0) * 67.9e6 / 1e12 if denoiser else None
                assert texts[column] == ("–" if value is None else f"{value:.3g}")
