"""Figures of runs: errors by timestep, reliability, confidence sequences, values with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.reports.facts import Interval
from bench.reports.figures.curves import Course, Curves
from bench.reports.figures.svg import Drawing, Palette
from bench.reports.text import shorten
from bench.stats.probability import Probability

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


MOST_LABEL = 38  # characters of a name in a forest plot


@dataclass(frozen=True)
class Bar:
    """A line of a forest plot."""

    name: str
    value: float
    interval: Interval | None = None  # 95 %
    text: str = ""  # the value in words
    trained: bool = False  # has the colour of trained models
    hollow: bool = False  # has an empty marker


def draw_forest(
    panels: Mapping[str, Sequence[Bar]],
    axis: str,
    scale: float = 1,
    limits: Interval | None = None,
    guess: float | None = None,
) -> Drawing:
    """Draw values with their intervals, one panel per title; names are above their lines.

    `axis` names the horizontal axis, whose values are multiplied by `scale`; `guess` is the value
    of guessing.
    """

    def plot(figure: Figure, colours: Palette) -> None:
        heights = [len(bars) + 0.6 for bars in panels.values()]
        all_axes = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        for axes, (title, bars) in zip(all_axes, panels.items(), strict=True):
            for height, bar in zip(range(0, -len(bars), -1), bars, strict=True):
                colour = colours.wrong if bar.trained else colours.right
                ends = [scale * end for end in bar.interval or (bar.value, bar.value)]
                axes.plot(ends, [height, height], color=colour, linewidth=2)
                (point,) = axes.plot(scale * bar.value, height, "o", color=colour, clip_on=False)
                point.set_markerfacecolor("none" if bar.hollow else colour)
                across = axes.get_yaxis_transform()  # from the left to the right edge
                axes.hlines(
                    height, 0, 1, color=colours.line, linewidth=1, transform=across, zorder=1
                )
                if guess is not None:
                    axes.vlines(scale * guess, height - 0.12, height + 0.12, color=colours.muted)
                for place, text in ((0, shorten(bar.name, MOST_LABEL)), (1, bar.text)):
                    style = {"color": colours.ink, "ha": ("left", "right")[place]}
                    axes.text(place, height + 0.25, text, transform=across, **style)
            axes.set_yticks([])
            axes.set_ylim(0.5 - len(bars), 0.8)
            axes.set_title(title, loc="left", fontsize=10.5)
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
        if limits is not None:
            all_axes[-1].set_xlim(*limits)
        all_axes[-1].set_xlabel(axis)

    lines = sum(map(len, panels.values()))
    titles = sum(map(bool, panels))
    label = "Values with their 95 % intervals; the values are in the table."
    return Drawing(plot, (4.6, 0.6 + 0.48 * lines + 0.4 * titles), label)
