"""Figure of the confidence sequence of a run that a question was to end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.strategy import Floats
from bench.errors import UserError
from bench.inputs.subsets import shuffle_samples
from bench.render.runs import RunData
from bench.render.svg import Drawing, Palette
from bench.stats.questions import Results, parse_question
from bench.stats.sequential import interval_course
from bench.store.folder import find_run
from bench.store.questions import QuestionAnswer
from bench.store.runs import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Course:
    """A 95 % confidence sequence: intervals that are valid at all numbers of images together."""

    what: str  # "accuracy" or "difference of accuracies"
    answer: QuestionAnswer  # answer to the question
    ends: Floats  # float64 [L, 3]: images, lower end, upper end
    bounds: tuple[float, ...]  # thresholds of the question


def find_course(run: RunData) -> Course | None:
    """Return the intervals for a run's last tested question, or None if there is none.

    They are of the difference to the other run if that is stored in the same folder, and of the
    accuracy otherwise.
    """
    answers = [a for a in (entry.answer for entry in run.questions) if a and a.anytime_ci95]
    if not answers:
        return None
    answer, right = answers[-1], run.decided.right_by_id()
    question = parse_question(answer.question)
    order = shuffle_samples(run.manifest.samples, run.manifest.identity.dataset.fingerprint)
    images = list(takewhile(right.__contains__, order))
    if not images:  # the record of the first image is damaged
        return None
    values = np.array([right[name] for name in images], np.float64)
    population = question.population(Results(values, None, answer.total))
    if question.run is not None and question.metric == "accuracy":
        with suppress(UserError):
            baseline = read_run(find_run(question.run, str(run.path.parent), exact=True))
            other = baseline.decided().right_by_id()
            shared = list(takewhile(other.__contains__, images))
            differences = values[: len(shared)] - np.array([other[name] for name in shared])
            if shared:
                ends = np.array(interval_course(differences, population=population))
                margin = float(question.margin)
                limits = (-margin, margin) if question.kind == "within" else (margin,)
                return Course("difference of accuracies", answer, ends, limits)
    ends = np.array(interval_course(2 * values - 1, population=population))
    ends[:, 1:] = (ends[:, 1:] + 1) / 2
    return Course("accuracy", answer, ends, ())


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
