"""Figures of a run: errors by timestep, reliability, and confidence sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.reports.figures.curves import Course, Curves
from bench.reports.figures.svg import Drawing, Palette
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
