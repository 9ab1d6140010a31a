"""The boards of a page: the best run, comparisons in pairs and figures of each board."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from bench.errors import UserError
from bench.reports.comparisons import compare_views
from bench.reports.facts import Column, Fact
from bench.reports.figures.cost import board_panel, board_point, draw_cost
from bench.reports.figures.gallery import Picture, make_pictures
from bench.reports.figures.plots import draw_forest
from bench.reports.figures.svg import Drawing
from bench.reports.leaderboard.board import Board, BoardLine
from bench.reports.leaderboard.rows import LeaderboardRow
from bench.reports.run_view import RunView
from bench.reports.sentences import Opening, make_opening
from bench.reports.text import Table, make_table
from bench.stats.inference.difference_tests import holm
from bench.stats.inference.paired import ALPHA, changed_samples
from bench.stats.metrics.comparison import Comparison

MOST_INTERVALS = 12  # per figure, best first
MOST_RUNS = 8  # runs of a dataset that are compared in pairs
MOST_PAIRS = 4  # pairs with the best run whose details are shown
MAX_CHANGED = 20  # images listed per pair


@dataclass(frozen=True)
class Pair:
    """The comparison of two runs: A, the better one, with B."""

    a: BoardLine
    b: BoardLine
    comparison: Comparison

    @cached_property
    def changed(self) -> tuple[list[tuple[Picture, Picture]], int]:
        """(A's decision, B's decision) of images on which they differ, and the number of all such.

        At most `MAX_CHANGED` images are included: first those that one run gets right, then those
        that both get wrong. The `Picture`s have no image, only the captions.
        """
        run_a, run_b = self.a.row.run, self.b.row.run
        rows_a, rows_b = changed_samples(run_a.decided, run_b.decided)
        both_wrong = ~(run_a.decided.correct[rows_a] | run_b.decided.correct[rows_b])
        order = np.argsort(both_wrong, kind="stable")[:MAX_CHANGED]
        of_a, of_b = (
            make_pictures(run, rows[order], lambda _: (None, False))
            for run, rows in ((run_a, rows_a), (run_b, rows_b))
        )
        return list(zip(of_a, of_b, strict=True)), len(rows_a)

    @property
    def table(self) -> Table:
        """The images on which the two runs decide differently."""
        columns: list[Column[tuple[Picture, Picture]]] = [
            Column("image", lambda pair: pair[0].sample_id),
            Column("true", lambda pair: pair[0].true),
            Column(f"{self.a.key} says", lambda pair: pair[0].answer),
            Column(f"{self.b.key} says", lambda pair: pair[1].answer),
        ]
        return make_table("", columns, self.changed[0])


@dataclass(frozen=True)
class BoardPart:
    """A board on a page."""

    board: Board
    anchors: Mapping[str, str]  # folder of a run → id of its section

    @cached_property
    def lines(self) -> list[BoardLine]:
        """The runs with the highest accuracies, of equal ones those of more images first.

        Results that others reported are left out.
        """
        runs = [line for line in self.board.lines if line.row.path is not None]
        runs.sort(key=lambda line: (-line.row.accuracy, -(line.row.n_samples or 0)))
        return runs[:MOST_RUNS]

    @property
    def best(self) -> BoardLine:
        """The run with the highest accuracy on its own images."""
        return self.lines[0]

    @property
    def run(self) -> RunView:
        """The best run with its decisions."""
        return self.best.row.run

    @cached_property
    def opening(self) -> Opening:
        """Sentences about the best run."""
        return make_opening(self.run)

    @cached_property
    def pairs(self) -> dict[tuple[int, int], Pair]:
        """Every comparable pair of `lines`, by the positions of the two lines, the better first."""
        pairs = {}
        for a, b in combinations(range(len(self.lines)), 2):
            run_a, run_b = self.lines[a].row.run, self.lines[b].row.run
            with suppress(UserError):  # different classes, or no image in common
                compared = compare_views(run_a, run_b, (run_a.decided, run_b.decided))
                pairs[a, b] = Pair(self.lines[a], self.lines[b], compared)
        return pairs

    @property
    def shown_pairs(self) -> list[Pair]:
        """The best run with each of the `MOST_PAIRS` next ones."""
        return [pair for (a, b), pair in self.pairs.items() if a == 0 and b <= MOST_PAIRS]

    @property
    def rivals(self) -> list[str]:
        """Keys of the runs that are not significantly worse than the best one.

        Each run is compared with the best one on the images of both, as `bench compare` does.
        The p-values are corrected for the number of runs by Holm's method.
        """
        pairs = [pair for (a, _), pair in self.pairs.items() if a == 0]
        corrected = holm([pair.comparison.difference.p or 0.0 for pair in pairs]).tolist()
        return [pair.b.key for pair, p in zip(pairs, corrected, strict=True) if p > ALPHA]

    def link(self, row: LeaderboardRow) -> str:
        """Return the address of a run's section on the page; "" if it has none."""
        anchor = self.anchors.get(row.path or "")
        return f"#{anchor}" if anchor else ""

    @property
    def table(self) -> Table:
        """The board as a table."""
        return self.board.table("page", link=self.link)

    @property
    def matrix(self) -> Table:
        """The accuracy of each run minus that of each other one, in points."""

        def run_cell(position: int) -> Fact:
            line = self.lines[position]
            text = f"{line.key}  {line.row.backbone} · {line.row.strategy}"
            return Fact("", text, link=self.link(line.row))

        def difference_column(position: int) -> Column[int]:
            name = f"minus {self.lines[position].key}"
            return Column(name, lambda row: self._difference(row, position), "number")

        positions = range(len(self.lines))
        columns = [Column[int]("", run_cell), *map(difference_column, positions)]
        return make_table(self.board.title, columns, positions)

    def _difference(self, row: int, column: int) -> Fact | None:
        """Return the accuracy of line `row` minus that of line `column`; None for no pair."""
        pair = self.pairs.get((min(row, column), max(row, column)))
        if pair is None:
            return None
        tested = pair.comparison.difference
        value = tested.estimate if row > column else -tested.estimate  # a pair's is B minus A
        note = f"p {Fact('', tested.p, 'p').text}"
        return Fact("", value, "points", note=note, strong=tested.significant)

    @property
    def intervals(self) -> Drawing:
        """The accuracies with their 95 % intervals, and the accuracy of guessing."""
        bars = [*map(board_point, self.board.lines[:MOST_INTERVALS])]
        if len(bars) == 1:  # a single bar needs no key
            bars = [replace(bar, name=bar.name.removeprefix(f"{bar.key}  ")) for bar in bars]
        chance = self.run.summary.metrics.chance
        return draw_forest({"": bars}, "accuracy, %", 100, (0, 100), chance)

    @property
    def costs(self) -> Drawing | None:
        """Accuracy against cost; None if there is nothing to compare."""
        panel = board_panel(self.board.in_comparable_cost)
        return draw_cost([panel]) if panel else None


def page_question(runs: Sequence[RunView]) -> str:
    """Return the question that a page about some runs answers."""
    datasets = list(dict.fromkeys(run.summary.dataset.name for run in runs))
    names = ", ".join(datasets)
    if len(runs) == 1:
        return f"How well does {runs[0].summary.backbone.name} classify {names}?"
    if len(datasets) == 1:
        return f"Which of {len(runs)} runs classifies {names} best?"
    return f"How well do {len(runs)} runs classify {names}?"


def blind_table(runs: Iterable[RunView]) -> Table | None:
    """Return a table of the runs that have a blind control among `runs`, each with its control.

    A blind control is the same run on altered images. None if no run has one.
    """
    identities = [(run, run.manifest.identity.plain()) for run in runs]
    pairs = []
    for control, identity in identities:
        if (kind := identity.get("control")) is not None:
            without = {name: value for name, value in identity.items() if name != "control"}
            pairs += [(run, control, str(kind)) for run, other in identities if other == without]
    columns: list[Column[tuple[RunView, RunView, str]]] = [
        Column("run", lambda pair: pair[0].manifest.run_id),
        Column("accuracy", lambda pair: pair[0].summary.metrics.accuracy, "share"),
        Column("control", lambda pair: pair[2]),
        Column("accuracy of the control", lambda pair: pair[1].summary.metrics.accuracy, "share"),
    ]
    return make_table("Blind controls", columns, pairs) if pairs else None
