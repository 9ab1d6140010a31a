"""Figures of a report: trade-off, errors by timestep, reliability, and confidence sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.contracts.strategy import Floats
from bench.reports.figures.curves import Course, Curves
from bench.reports.figures.svg import Drawing, Palette
from bench.reports.page.board import Entry, group_comparable, pareto_front
from bench.stats.probability import Probability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

MAX_SHARED_KEYS = 5  # keys in one label, for points that lie together
GAP = 7  # typographic points between a marker and its label
KEY_STYLE: dict[str, Any] = {"textcoords": "offset points", "fontweight": "bold"}


def draw_tradeoff(entries: Sequence[Entry]) -> Drawing | None:
    """Draw accuracy against cost with Pareto fronts; None if there is nothing to compare."""
    placed = [entry for entry in entries if entry.row.cost is not None]
    if len(entries) < 2 or not placed:
        return None

    def plot(figure: Figure, colours: Palette) -> None:
        axes = figure.add_axes((0.14, 0.15, 0.8, 0.82))
        for group in group_comparable(entries):
            front = pareto_front(group)
            if len(front) > 1:
                cost = [entry.row.cost or 0 for entry in front]
                accuracy = [entry.row.accuracy for entry in front]
                colour = _colour(front[0], colours)
                axes.step(cost, accuracy, where="post", color=colour, linewidth=1)
        _draw_points(axes, placed, colours)
        axes.set_xscale("log")
        axes.margins(x=0.12, y=0.12)
        for entry in entries:  # one without a cost becomes a horizontal line
            if entry.row.cost is None:
                axes.axhline(entry.row.accuracy, color=colours.muted, linestyle=":", linewidth=1.2)
                place, scale = (1, entry.row.accuracy), ("axes fraction", "data")
                offset, colour = (4, 0), colours.muted
                axes.annotate(
                    entry.key, place, offset, scale, **KEY_STYLE, va="center", color=colour
                )
        _draw_keys(figure, axes, placed, colours)  # last, when the limits are final
        axes.set_xlabel("cost, evaluations per image")
        axes.set_ylabel("accuracy")
        _set_plain_ticks(axes)

    label = "Accuracy against cost; the values are in the leaderboard."
    return Drawing(plot, (4.6, 3.3), label, placed=True)


def _set_plain_ticks(axes: Axes) -> None:
    """Label ticks as 50 and 1,000 instead of powers of ten; fewer on a wide range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    few = high / low > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _colour(entry: Entry, colours: Palette) -> str:
    return colours.right if entry.row.trained_on is None else colours.wrong


def _interval(entry: Entry) -> tuple[float, float]:
    return entry.row.shown_ci95 or (entry.row.accuracy, entry.row.accuracy)


def _draw_points(axes: Axes, entries: Sequence[Entry], colours: Palette) -> None:
    alike: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        kind = entry.row.kind
        colour = colours.muted if kind == "reported" else _colour(entry, colours)
        shape = {"replayed": "^", "reported": "s"}.get(kind, "o")
        alike.setdefault((shape, colour, "none" if entry.is_partial else colour), []).append(entry)
    for (shape, colour, filling), members in alike.items():
        accuracy = np.array([entry.row.accuracy for entry in members])
        low, high = np.array([_interval(entry) for entry in members]).T
        axes.errorbar(
            [entry.row.cost or 0 for entry in members],
            accuracy,
            np.clip([accuracy - low, high - accuracy], 0, None),
            fmt=shape,
            color=colour,
            markerfacecolor=filling,
            markersize=6,
            elinewidth=1,
            capsize=2.5,
        )


def _draw_keys(figure: Figure, axes: Axes, entries: Sequence[Entry], colours: Palette) -> None:
    """Label the markers with the entries' keys; markers that lie together share a label."""
    spots: list[tuple[Floats, list[Entry]]] = []
    for entry in sorted(entries, key=lambda entry: entry.row.cost or 0):
        place = axes.transLimits.transform(
            axes.transScale.transform((entry.row.cost or 0, entry.row.accuracy))
        )
        for other, members in spots:
            if (np.abs(place - other) < (0.1, 0.08)).all():
                members.append(entry)
                break
        else:
            spots.append((place, [entry]))
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D, Bbox

    pixels = figure.dpi / 72  # per point
    show = axes.transData.transform
    taken = []  # boxes of error bars and labels, in points
    for entry in entries:
        ends = [show((entry.row.cost or 0, end)) / pixels for end in _interval(entry)]
        taken.append(Bbox(ends).padded(3))
    whole = axes.bbox.transformed(Affine2D().scale(1 / pixels))
    for _, members in spots:
        last = members[-1]
        keys = sorted((entry.key for entry in members), key=lambda key: (len(key), key))
        more = len(keys) - MAX_SHARED_KEYS
        text = " ".join(keys[:MAX_SHARED_KEYS]) + (f" +{more}" if more > 0 else "")
        point = (last.row.cost or 0, last.row.accuracy)
        x, y = show(point) / pixels
        size = TextPath((0, 0), text, prop=FontProperties(size=10.5, weight="bold")).get_extents()
        box = find_free_place(Bbox.from_bounds(x, y, size.width, size.height), taken, whole)
        taken.append(box)
        axes.annotate(text, point, (box.x0 - x, box.y0 - y), **KEY_STYLE, color=colours.ink)


def find_free_place(text: Bbox, taken: Sequence[Bbox], whole: Bbox) -> Bbox:
    """Return the box for a label near a marker that overlaps as few `taken` boxes as possible.

    `text` has the marker as its lower left corner and the size of the label. All are in points.
    """
    from matplotlib.transforms import Bbox

    (x, y), width, height = text.p0, text.width, text.height
    lefts, middles = (x + GAP, x - GAP - width), (y + 5, y - 5 - height)
    reach = [box for box in taken if box.x0 < x < box.x1] or [text]  # bars through the marker
    above, below = max(box.y1 for box in reach) + 1, min(box.y0 for box in reach) - 1 - height
    corners = [(left, low) for low in middles for left in lefts]
    corners += [(left, low) for low in (above, below) for left in (x - width / 2, *lefts)]
    boxes = [Bbox.from_bounds(left, low, width, height) for left, low in corners]

    def hits(box: Bbox) -> int:
        inside = whole.contains(*box.p0) and whole.contains(*box.p1)
        return box.count_overlaps(taken) + (not inside)

    return min(boxes, key=hits)


def draw_errors(curves: Curves) -> Drawing:
    """Draw the errors of the true and the best wrong class by timestep, and their difference."""

    def plot(figure: Figure, colours: Palette) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        t = curves.timestep
        above.plot(
            t, curves.wrong, color=colours.wrong, linestyle="--", linewidth=1.4, label="best wrong"
        )
        above.plot(t, curves.true, color=colours.right, linewidth=1.4, label="true class")
        above.set_ylabel("error")
        above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderpad=0)
        reach = 1.96 * curves.gap_stderr
        below.axhline(0, color=colours.muted, linewidth=1)
        below.fill_between(
            t, curves.gap - reach, curves.gap + reach, color=colours.right, alpha=0.25, linewidth=0
        )
        below.plot(t, curves.gap, color=colours.right, linewidth=1.4)
        below.set_ylabel("wrong − true")
        below.set_xlabel("timestep")
        below.locator_params(axis="y", nbins=4)
        figure.align_ylabels()

    label = "Error against timestep for the true and the best wrong class, and the difference."
    return Drawing(plot, (4.6, 3.9), label)


def draw_reliability(skill: Probability) -> Drawing:
    """Draw the reliability diagram, and accuracy against coverage."""

    def plot(figure: Figure, colours: Palette) -> None:
        left, right = figure.subplots(1, 2)
        ends = [b.accuracy_ci95 for b in skill.bins]
        lowest = min([low for low, _ in ends] + [b.probability for b in skill.bins])
        left.plot([lowest, 1], [lowest, 1], color=colours.muted, linestyle=":", linewidth=1.2)
        accuracy, (low, high) = np.array([b.accuracy for b in skill.bins]), np.array(ends).T
        left.errorbar(
            [b.probability for b in skill.bins],
            accuracy,
            np.clip([accuracy - low, high - accuracy], 0, None),
            fmt="o",
            color=colours.right,
            markersize=5,
            elinewidth=1,
        )
        left.set_xlabel("probability")
        left.set_ylabel("accuracy")
        right.plot(
            [c.coverage for c in skill.coverage],
            [c.accuracy for c in skill.coverage],
            color=colours.right,
            linewidth=1.4,
        )
        right.axhline(skill.accuracy, color=colours.muted, linestyle=":", linewidth=1.2)
        right.set_xlabel("coverage")

    label = "Reliability diagram, and accuracy against coverage; the text says the scores."
    return Drawing(plot, (4.6, 2.6), label)


def draw_course(course: Course) -> Drawing:
    """Draw the intervals, the thresholds, and the image at which the question was answered."""

    def plot(figure: Figure, colours: Palette) -> None:
        axes = figure.subplots()
        images, low, high = course.ends.T
        axes.fill_between(images, low, high, color=colours.right, alpha=0.25, linewidth=0)
        for ends in (low, high):
            axes.plot(images, ends, color=colours.right, linewidth=1.4)
        for bound in course.bounds:
            axes.axhline(bound, color=colours.wrong, linestyle="--", linewidth=1.2)
        if course.answer.verdict != "open":
            axes.axvline(course.answer.n, color=colours.muted, linestyle=":", linewidth=1.2)
        axes.set_xlabel("images in random order")
        axes.set_ylabel(course.what)

    return Drawing(plot, (4.6, 2.8), f"The 95 % interval of the {course.what} by images.")
