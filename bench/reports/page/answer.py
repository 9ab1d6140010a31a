"""The top of a report: its question and, for each board, the best run with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from typing_extensions import override

from bench.reports.figures.svg import Drawing, Palette
from bench.reports.formats import percent_text
from bench.reports.leaderboard.board import Board, BoardLine
from bench.reports.leaderboard.rows import SUBSET
from bench.reports.page.pairs import runs_of
from bench.reports.run_view import RunView
from bench.reports.text import shorten
from bench.stats.difference_tests import holm
from bench.stats.metrics import INCOMPLETE
from bench.stats.paired import ALPHA, mcnemar
from bench.store.decisions import shared_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_INTERVALS = 12  # per figure, best first
LONGEST_NAME = 34  # characters of a run's name in the figure


@dataclass(frozen=True)
class Rival:
    """A run that is not significantly worse than the best one on the images of both."""

    key: str  # its letters on the board
    n: int  # number of images of both
    best_right: int  # number of these that the best run gets right
    right: int  # number of these that it gets right
    p: float  # McNemar's exact test, corrected for all rivals by Holm

    @override
    def __str__(self) -> str:
        counts = f"{self.best_right:,} against {self.right:,} of the {self.n:,} images of both"
        return f"{self.key} ({counts}, p = {self.p:.2g})"


@dataclass(frozen=True)
class BoardAnswer:
    """The answer for one board: its best run, described in sentences, and all intervals."""

    board: Board
    best: BoardLine
    intervals: Drawing
    rivals: list[Rival]

    @property
    def run(self) -> RunView:
        """The best run."""
        return self.best.row.run


def answers(boards: Sequence[Board]) -> list[BoardAnswer]:
    """Return the answer for each board that has a run."""
    return [
        BoardAnswer(
            board,
            best,
            draw_intervals(board.lines, best.row.run.summary.metrics.chance),
            find_rivals(best, runs_of(board)),
        )
        for board in boards
        for best in [max((x for x in board.lines if x.row.path), key=_accuracy_and_images)]
    ]


def _accuracy_and_images(line: BoardLine) -> tuple[float, int]:
    return line.row.accuracy, line.row.n_samples or 0


def find_rivals(best: BoardLine, lines: Sequence[BoardLine]) -> list[Rival]:
    """Return the rivals of the best run among some lines of its board."""
    of_best, tested = best.row.run.decided, []
    for line in lines:
        if line is best:
            continue
        other = line.row.run.decided
        rows_a, rows_b = shared_rows(of_best, other)
        a, b = of_best.correct[rows_a], other.correct[rows_b]
        if len(a):
            p = float(mcnemar(int((a & ~b).sum()), int((b & ~a).sum())))
            tested.append(Rival(line.key, len(a), int(a.sum()), int(b.sum()), p))
    corrected = holm([rival.p for rival in tested]).tolist()
    rivals = [replace(rival, p=p) for rival, p in zip(tested, corrected, strict=True)]
    return [rival for rival in rivals if rival.p > ALPHA]


def page_question(runs: Sequence[RunView]) -> str:
    """Return the question that a page about some runs answers."""
    datasets = list(dict.fromkeys(run.summary.dataset.name for run in runs))
    names = ", ".join(datasets)
    if len(runs) == 1:
        return f"How well does {runs[0].summary.backbone.name} classify {names}?"
    if len(datasets) == 1:
        return f"Which of {len(runs)} runs classifies {names} best?"
    return f"How well do {len(runs)} runs classify {names}?"


def draw_intervals(lines: Sequence[BoardLine], chance: float | None) -> Drawing:
    """Draw a board's accuracies with 95 % intervals, and `chance`, the accuracy of guessing."""
    shown = lines[:MOST_INTERVALS]

    def plot(figure: Figure, colours: Palette) -> None:
        axes = figure.subplots()
        for place, line in enumerate(shown):
            row, height = line.row, -place
            colour = colours.right if row.trained_on is None else colours.wrong
            name = shorten(f"{row.backbone} · {row.strategy}", LONGEST_NAME)
            axes.plot([0, 100], [height, height], color=colours.line, linewidth=1)
            if chance is not None:
                guessing = [100 * chance, 100 * chance]
                axes.plot(guessing, [height - 0.12, height + 0.12], color=colours.muted)
            if row.shown_ci95:
                low, high = (100 * end for end in row.shown_ci95)
                axes.plot([low, high], [height, height], color=colour, linewidth=2)
            text = percent_text(row.accuracy, row.shown_ci95)
            filling = "none" if row.kind in (SUBSET, INCOMPLETE) else colour
            (point,) = axes.plot(100 * row.accuracy, height, "o", color=colour, clip_on=False)
            point.set_markerfacecolor(filling)
            key = f"{line.key}  " if len(lines) > 1 else ""
            axes.text(0, height + 0.25, key + name, color=colours.ink)
            axes.text(100, height + 0.25, text, ha="right", color=colours.ink)
        axes.grid(False)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, 100)
        axes.set_ylim(0.5 - len(shown), 0.8)
        axes.set_xlabel("accuracy, %")

    label = "Accuracy of each run with its 95 % interval; the values are in the leaderboard."
    return Drawing(plot, (4.6, 0.6 + 0.48 * len(shown)), label)
