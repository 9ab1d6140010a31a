"""The top of a report: its question and, for each board, the best run with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.reports.figures.svg import Drawing, Palette
from bench.reports.page.board import MOST_RUNS, Entry, PageBoard
from bench.reports.run_view import RunView
from bench.reports.sentences import Opening
from bench.reports.text import shorten
from bench.stats.difference_tests import holm
from bench.stats.paired import ALPHA, mcnemar
from bench.store.decisions import shared_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_INTERVALS = 12  # per figure, best first
LONGEST_NAME = 34  # characters of a run's name in the figure


@dataclass(frozen=True)
class Rival:
    """A run that is not significantly worse than the best one on the images of both."""

    key: str  # key of its entry
    n: int  # number of images of both
    best_right: int  # number of these that the best run gets right
    right: int  # number of these that it gets right
    p: float  # McNemar's exact test, corrected for all rivals by Holm

    def __str__(self) -> str:
        counts = f"{self.best_right:,} against {self.right:,} of the {self.n:,} images of both"
        return f"{self.key} ({counts}, p = {self.p:.2g})"


@dataclass(frozen=True)
class BoardAnswer:
    """The answer for one board: its best run, described in sentences, and all intervals."""

    board: PageBoard
    best: Entry
    run: RunView
    opening: Opening
    intervals: Drawing
    rivals: list[Rival]


def answers(
    boards: Sequence[PageBoard], runs: Mapping[str, RunView], openings: Mapping[str, Opening]
) -> list[BoardAnswer]:
    """Return the answer for each board; `runs` and `openings` are keyed by section id."""
    return [
        BoardAnswer(
            board,
            best,
            runs[best.anchor],
            openings[best.anchor],
            draw_intervals(board.entries, runs[best.anchor].summary.metrics.chance),
            find_rivals(best, board.entries, runs),
        )
        for board in boards
        for best in [max(filter(lambda e: e.anchor, board.entries), key=_accuracy_and_images)]
    ]


def _accuracy_and_images(entry: Entry) -> tuple[float, int]:
    return entry.row.accuracy, entry.row.n_samples or 0


def find_rivals(best: Entry, entries: Sequence[Entry], runs: Mapping[str, RunView]) -> list[Rival]:
    """Return the rivals of the best run among the `MOST_RUNS` best others of its board."""
    others = [entry for entry in entries if entry.anchor and entry is not best][:MOST_RUNS]
    of_best, tested = runs[best.anchor].decided, []
    for entry in others:
        other = runs[entry.anchor].decided
        rows_a, rows_b = shared_rows(of_best, other)
        a, b = of_best.correct[rows_a], other.correct[rows_b]
        if len(a):
            p = float(mcnemar(int((a & ~b).sum()), int((b & ~a).sum())))
            tested.append(Rival(entry.key, len(a), int(a.sum()), int(b.sum()), p))
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


def draw_intervals(entries: Sequence[Entry], chance: float | None) -> Drawing:
    """Draw a board's accuracies with 95 % intervals, and `chance`, the accuracy of guessing."""
    shown = entries[:MOST_INTERVALS]

    def plot(figure: Figure, colours: Palette) -> None:
        axes = figure.subplots()
        for place, entry in enumerate(shown):
            row, height = entry.row, -place
            colour = colours.right if row.trained_on is None else colours.wrong
            name = shorten(f"{row.backbone} · {row.strategy}", LONGEST_NAME)
            text = f"{100 * row.accuracy:.1f} %"
            axes.plot([0, 100], [height, height], color=colours.line, linewidth=1)
            if chance is not None:
                guessing = [100 * chance, 100 * chance]
                axes.plot(guessing, [height - 0.12, height + 0.12], color=colours.muted)
            if row.shown_ci95:
                low, high = (100 * end for end in row.shown_ci95)
                axes.plot([low, high], [height, height], color=colour, linewidth=2)
                text += f" ({low:.1f}–{high:.1f})"
            filling = "none" if entry.is_partial else colour
            (point,) = axes.plot(100 * row.accuracy, height, "o", color=colour, clip_on=False)
            point.set_markerfacecolor(filling)
            key = f"{entry.key}  " if len(entries) > 1 else ""
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
