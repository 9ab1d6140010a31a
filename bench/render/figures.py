"""The report's figures, each a function from numbers to an inline SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bench.render.board import Row, comparable, pareto_front
from bench.render.breakdown import Bin, ClassShare, Curves
from bench.render.svg import INK, LINE, MUTED, RIGHT, WRONG, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.6  # inches
PIXELS = 150  # on a side of a confusion matrix
BARS = 40  # classes in one figure; of more, the worst are shown


def tradeoff(rows: Sequence[Row], name: str) -> Markup | None:
    """Draw accuracy against evaluations an image, with the Pareto front of what compares.

    None where there is nothing to compare.
    """
    placed = [row for row in rows if row.evaluations is not None]
    if len(rows) < 2 or not placed:
        return None

    def plot(figure: Figure) -> None:
        axes = figure.add_subplot()
        for group in comparable(rows):
            front = pareto_front(group)
            if len(front) > 1:
                cost = [row.evaluations or 0 for row in front]
                accuracy = [row.accuracy for row in front]
                axes.step(cost, accuracy, where="post", color=_colour(front[0]), linewidth=1)
        for row in placed:
            _point(axes, row)
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.12)
        _keys(axes, placed)
        for row in rows:  # reported without a cost: a level
            if row.evaluations is None:
                axes.axhline(row.accuracy, color=MUTED, linestyle=":", linewidth=1.2)
                axes.annotate(
                    row.key,
                    (1, row.accuracy),
                    xycoords=("axes fraction", "data"),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    color=MUTED,
                    fontweight="bold",
                )
        axes.set_xlabel("evaluations an image")
        axes.set_ylabel("accuracy")
        _plain_ticks(axes)

    return draw(
        plot,
        (WIDTH, 3.3),
        name,
        "Accuracy against evaluations an image; the values are in the leaderboard.",
    )


def _plain_ticks(axes: Axes) -> None:
    """Write 50 and 1,000, not powers of ten, and few of them on a narrow scale."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    few = high / low > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _colour(row: Row) -> str:
    return RIGHT if row.trained_on is None else WRONG


def _point(axes: Axes, row: Row) -> None:
    low, high = row.interval or (row.accuracy, row.accuracy)
    colour = MUTED if row.kind == "reported" else _colour(row)
    axes.errorbar(
        [row.evaluations or 0],
        [row.accuracy],
        [[max(0.0, row.accuracy - low)], [max(0.0, high - row.accuracy)]],
        fmt={"replayed": "^", "reported": "s"}.get(row.kind, "o"),
        color=colour,
        markerfacecolor="none" if row.partial else colour,
        markersize=6,
        elinewidth=1,
        capsize=2.5,
    )


def _keys(axes: Axes, rows: Sequence[Row]) -> None:
    """Write the rows' keys beside their points; points that lie together share a text."""
    spots: list[tuple[NDArray[np.float64], list[Row]]] = []
    for row in sorted(rows, key=lambda row: row.evaluations or 0):
        place = axes.transLimits.transform(
            axes.transScale.transform((row.evaluations or 0, row.accuracy))
        )
        for other, members in spots:
            if (np.abs(place - other) < (0.1, 0.08)).all():
                members.append(row)
                break
        else:
            spots.append((place, [row]))
    for _, members in spots:
        last = members[-1]
        axes.annotate(
            " ".join(sorted(row.key for row in members)),
            (last.evaluations or 0, last.accuracy),
            xytext=(7, 5),
            textcoords="offset points",
            color=INK,
            fontweight="bold",
        )


def class_bars(shares: Sequence[ClassShare], name: str) -> Markup:
    """Draw the recall of each class with its interval, worst first, and the precision."""
    shown = sorted((s for s in shares if s.recall is not None), key=lambda s: s.recall or 0)[:BARS]

    def plot(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(shown))
        recall = np.array([s.recall for s in shown], dtype=float)
        ends = np.array([s.interval for s in shown], dtype=float).T
        reach = np.clip([recall - ends[0], ends[1] - recall], 0, None)
        axes.barh(places, recall, height=0.62, color=RIGHT, alpha=0.45)
        axes.errorbar(recall, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1)
        said = [(s.precision, p) for p, s in enumerate(shown) if s.precision is not None]
        if said:
            axes.plot(*zip(*said, strict=True), "D", color=WRONG, markersize=4, clip_on=False)
        axes.set_yticks(places, [textwrap.shorten(s.name, 24, placeholder="…") for s in shown])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("recall (bar), precision (diamond)")

    return draw(
        plot,
        (WIDTH, 0.75 + 0.23 * max(len(shown), 3)),
        name,
        "Recall and precision of each class; the values are in the table below.",
    )


def reliability(bins: Sequence[Bin], name: str) -> Markup:
    """Draw accuracy against confidence, and how many images have which confidence."""
    filled = [b for b in bins if b.n]

    def plot(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot((0, 1), (0, 1), color=MUTED, linestyle="--", linewidth=1)
        accuracy = np.array([b.accuracy for b in filled], dtype=float)
        ends = np.array([b.interval for b in filled], dtype=float).T
        above.errorbar(
            [b.confidence or 0 for b in filled],
            accuracy,
            np.clip([accuracy - ends[0], ends[1] - accuracy], 0, None),
            fmt="o",
            color=RIGHT,
            markersize=5,
            elinewidth=1,
            capsize=2.5,
        )
        above.set_ylim(-0.03, 1.03)
        above.set_ylabel("accuracy")
        middle = [(b.low + b.high) / 2 for b in bins]
        below.bar(middle, [b.n for b in bins], width=0.9 / len(bins), color=RIGHT, alpha=0.45)
        below.set_ylabel("images")
        below.set_xlabel("confidence")
        below.set_xlim(-0.02, 1.02)
        below.locator_params(axis="y", nbins=3)

    return draw(
        plot,
        (WIDTH, 3.6),
        name,
        "Accuracy against confidence; the values are in the table below.",
    )


def error_curves(curves: Curves, name: str) -> Markup:
    """Draw the errors of the true and the best wrong class by timestep, and their gap."""

    def plot(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        t = curves.timestep
        above.plot(t, curves.wrong, color=WRONG, linestyle="--", linewidth=1.4, label="best wrong")
        above.plot(t, curves.true, color=RIGHT, linewidth=1.4, label="true class")
        above.set_ylabel("error")
        above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderpad=0)
        reach = 1.96 * curves.gap_stderr
        below.axhline(0, color=MUTED, linewidth=1)
        below.fill_between(
            t, curves.gap - reach, curves.gap + reach, color=RIGHT, alpha=0.25, linewidth=0
        )
        below.plot(t, curves.gap, color=RIGHT, linewidth=1.4)
        below.set_ylabel("wrong − true")
        below.set_xlabel("timestep")
        below.locator_params(axis="y", nbins=4)
        figure.align_ylabels()

    return draw(
        plot,
        (WIDTH, 3.9),
        name,
        "Error against timestep for the true and the best wrong class, and the difference.",
    )


def confusion_image(matrix: NDArray[np.int64], name: str) -> Markup:
    """Draw the confusion matrix of many classes as an image; rows are the true classes."""

    def plot(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap, PowerNorm

        axes = figure.add_subplot()
        # A pixel for a block of classes, or a thin diagonal would vanish on the screen.
        starts = np.arange(0, len(matrix), -(-len(matrix) // PIXELS))
        blocks = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
        shares: Any = blocks / blocks.sum(axis=1, keepdims=True).clip(min=1)
        ends = (-0.5, len(matrix) - 0.5)
        # Clear where nothing is: the page's background shows through in light and in dark.
        paint = LinearSegmentedColormap.from_list("", [(0.3, 0.5, 0.9, 0), (0.3, 0.5, 0.9, 1)])
        axes.imshow(
            shares,
            cmap=paint,
            norm=PowerNorm(0.4, 0, 1),
            interpolation="nearest",
            extent=(*ends, *ends[::-1]),
        )
        axes.grid(visible=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for spine in axes.spines.values():
            spine.set(visible=True, color=LINE)

    return draw(plot, (WIDTH, WIDTH), name, "Confusion matrix; the worst are in the table below.")
