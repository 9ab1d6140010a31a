"""The runs of a page in pairs: comparisons on each board, and blind controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from bench.errors import UserError
from bench.reports.facts import Column
from bench.reports.figures.gallery import Picture, make_pictures
from bench.reports.leaderboard.board import Board, BoardLine
from bench.reports.run_view import RunView
from bench.reports.text import Table, make_table
from bench.stats.comparison import Comparison, compare_decided
from bench.stats.paired import changed_samples

MOST_RUNS = 8  # runs of a dataset that are compared in pairs
MOST_PAIRS = 4  # pairs with the best run whose details are shown
MAX_CHANGED = 20  # images listed per pair


@dataclass(frozen=True)
class Pair:
    """The comparison of run B with run A, and their keys on the board."""

    key_a: str
    key_b: str
    comparison: Comparison
    changed: list[tuple[Picture, Picture]]  # decisions of A and B on images, without the pictures
    total: int  # number of images that are decided differently

    @property
    def table(self) -> Table:
        """The images that are decided differently."""
        columns: list[Column[tuple[Picture, Picture]]] = [
            Column("image", lambda pair: pair[0].sample_id),
            Column("true", lambda pair: pair[0].true),
            Column(f"A: {self.key_a}", lambda pair: pair[0].answer),
            Column(f"B: {self.key_b}", lambda pair: pair[1].answer),
        ]
        return make_table("", columns, self.changed)


@dataclass(frozen=True)
class PairwiseComparisons:
    """Pairwise comparisons of the best runs of one board, best first."""

    name: str
    lines: list[BoardLine]
    comparisons: list[list[Comparison | None]]  # row less column; None if not comparable
    pairs: list[Pair]  # the best run against each of the next ones


def runs_of(board: Board) -> list[BoardLine]:
    """Return the lines of the best runs of a board, without reported results, best first."""
    return [line for line in board.lines if line.row.path is not None][:MOST_RUNS]


def compare_runs(boards: Sequence[Board]) -> list[PairwiseComparisons]:
    """Return the comparisons for each board with at least two comparable runs."""
    tables = []
    for board in boards:
        lines = runs_of(board)
        compared: dict[tuple[int, int], Comparison] = {}
        for row, column in permutations(range(len(lines)), 2):
            a, b = lines[column].row.run, lines[row].row.run
            with suppress(UserError):  # different classes, or no image in common
                manifests, decided = (a.manifest, b.manifest), (a.decided, b.decided)
                compared[row, column] = compare_decided(manifests, decided)
        if not compared:
            continue
        size = range(len(lines))
        comparisons = [[compared.get((row, column)) for column in size] for row in size]
        pairs = [
            _pair(lines[0], lines[place], compared[place, 0])
            for place in range(1, min(len(lines), MOST_PAIRS + 1))
            if (place, 0) in compared
        ]
        tables.append(PairwiseComparisons(board.title, lines, comparisons, pairs))
    return tables


def _pair(a: BoardLine, b: BoardLine, comparison: Comparison) -> Pair:
    run_a, run_b = a.row.run, b.row.run
    rows_a, rows_b = changed_samples(run_a.decided, run_b.decided)
    # Images that one run alone gets right come before those that both get wrong.
    both_wrong = ~(run_a.decided.correct[rows_a] | run_b.decided.correct[rows_b])
    order = np.argsort(both_wrong, kind="stable")[:MAX_CHANGED]
    of_a, of_b = (
        make_pictures(run, rows[order], lambda _: (None, False))
        for run, rows in ((run_a, rows_a), (run_b, rows_b))
    )
    changed = list(zip(of_a, of_b, strict=True))
    return Pair(a.key, b.key, comparison, changed, len(rows_a))


def blind_table(runs: Iterable[RunView]) -> Table | None:
    """Return the runs whose blind control is among them, beside it; None if there are none."""
    identities = [(run, run.manifest.identity.plain()) for run in runs]
    pairs = [
        (seen, blind, str(identity["control"]))
        for blind, identity in identities
        if identity.get("control") is not None
        for seen, other in identities
        if other == {name: value for name, value in identity.items() if name != "control"}
    ]
    columns: list[Column[tuple[RunView, RunView, str]]] = [
        Column("run", lambda pair: pair[0].manifest.run_id),
        Column("accuracy", lambda pair: pair[0].summary.metrics.accuracy, "share"),
        Column("control", lambda pair: pair[2]),
        Column("accuracy of the control", lambda pair: pair[1].summary.metrics.accuracy, "share"),
    ]
    return make_table("Blind controls", columns, pairs) if pairs else None
