"""A study's figures: a forest plot, and from ten datasets on a critical-difference plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.boards.study.report import StudyReport
from bench.errors import UserError
from bench.stats.ranks import FEWEST, MeanRanks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABEL = 44  # characters of a method's name


def forest_plot(report: StudyReport) -> Figure:
    """Return a figure with the accuracy and the interval of every method, by dataset.

    Raises:
        UserError: the study has no decided image yet.
    """
    from matplotlib.figure import Figure

    if not report.methods:
        raise UserError(f"The study {report.name} has no decided image yet; nothing to draw.")
    boards = list(dict.fromkeys(method.board for method in report.methods))
    counts = [sum(m.board == board for m in report.methods) for board in boards]
    height = 1.0 + 0.3 * sum(counts) + 0.5 * len(boards)
    figure = Figure(figsize=(7, height), layout="constrained")
    all_axes = figure.subplots(
        len(boards), 1, sharex=True, squeeze=False, height_ratios=[n + 0.6 for n in counts]
    )[:, 0]
    for axes, board in zip(all_axes, boards, strict=True):
        methods = [m for m in report.methods if m.board == board][::-1]
        for place, one in enumerate(methods):
            low, high = one.spread.interval
            colour = "#1b6ca8" if one.trained_on is None else "#c2571a"
            axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=1.6)
            axes.plot([100 * one.spread.accuracy], [place], "o", color=colour, markersize=5)
        names = [_cut(one.method) for one in methods]
        axes.set_yticks(range(len(methods)), names, parse_math=False)
        axes.set_ylim(-0.6, len(methods) - 0.4)
        axes.set_title(board, loc="left", fontsize=10, parse_math=False)
        axes.grid(axis="x", color="#cccccc", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    over = f"images, {' and '.join(f'{n}s' for n in report.over)}" if report.over else "images"
    all_axes[-1].set_xlabel(f"accuracy, %, with its 95 % interval over {over}")
    return figure


def critical_difference_plot(ranks: MeanRanks | None) -> Figure:
    """Return a figure of mean ranks in which methods that do not differ are joined.

    Raises:
        UserError: there are fewer than ten datasets, or fewer than three methods on all of them.
    """
    from matplotlib.figure import Figure

    if ranks is None:
        raise UserError(
            f"A critical-difference plot needs {FEWEST} datasets and three methods on all of them:"
            " with fewer, ranks say next to nothing. --figure draws a forest plot."
        )
    k = len(ranks.methods)
    figure = Figure(figsize=(7, 1.4 + 0.28 * k), layout="constrained")
    axes = figure.subplots()
    for place, (name, rank) in enumerate(zip(ranks.methods, ranks.ranks, strict=True)):
        axes.plot([rank, rank], [0, -1 - place], color="#888888", linewidth=0.8)
        axes.plot([rank], [0], "o", color="#1b6ca8", markersize=5)
        axes.annotate(f"{_cut(name)}  {rank:.2f}", (rank, -1 - place), parse_math=False, fontsize=9)
    for level, (first, last) in enumerate(ranks.cliques):
        height = 0.5 + 0.35 * level
        axes.plot([ranks.ranks[first], ranks.ranks[last]], [height] * 2, color="#222222", lw=3)
    axes.plot([1, 1 + ranks.critical_difference], [2.2, 2.2], color="#c2571a", lw=1.5)
    axes.annotate(f"critical difference {ranks.critical_difference:.2f}", (1, 2.4), fontsize=9)
    axes.set_xlim(0.8, k + 1.5)
    axes.set_ylim(-1.6 - k, 3.4)
    axes.set_yticks([])
    axes.set_xlabel(f"mean rank over {ranks.datasets} datasets (1 is best)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's name ends with.

    Raises:
        UserError: it cannot be written, or matplotlib does not know the format.
    """
    from matplotlib import rc_context

    try:
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench"}):
            figure.savefig(path, dpi=160)
    except (OSError, ValueError) as error:
        raise UserError(f"--figure {path}: {error}.") from None


def _cut(name: str) -> str:
    return name if len(name) <= MOST_LABEL else f"{name[: MOST_LABEL - 1]}…"
