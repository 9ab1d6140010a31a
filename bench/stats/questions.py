"""Questions that end a run: what is asked, and what the images so far answer."""

from __future__ import annotations

import re
from functools import partial
from math import log
from typing import Any, Literal, NamedTuple

import numpy as np

from bench.contracts.strategy import Floats
from bench.errors import UserError
from bench.stats.paired import ALPHA
from bench.stats.sequential import (
    accuracy_anytime,
    anytime_interval,
    anytime_p,
    first_narrow,
    log_capital,
    two_sided_p,
)
from bench.store.questions import QuestionAnswer, Verdict

Kind = Literal["differs", "better", "within", "width"]

FORMS = '"differs from RUN", "better than RUN by 0.02", "within 0.02 of RUN", "width 0.05"'
WHOLE_SPLIT = "on this split"
MEANS = {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"}
_NUMBER = r"(?P<margin>\d*\.?\d+)"
_PATTERNS: dict[Kind, str] = {
    "differs": r"differs from (?P<run>\S+)",
    "better": rf"better than (?P<run>\S+)(?: by {_NUMBER})?",
    "within": rf"within {_NUMBER} of (?P<run>\S+)",
    "width": rf"width {_NUMBER}",
}


class StopQuestion(NamedTuple):
    """A question about a run's accuracy, alone or against that of another run."""

    kind: Kind
    text: str  # the question as it was asked
    run: str | None = None  # the run that it is compared with; None: a width is asked for
    margin: float = 0.0  # share that "better", "within" and "width" name
    whole_split: bool = False  # whether it is about the images of this split, not all like these
    metric: str = "accuracy"  # a mean over images, weighted or not


def parse_question(text: str) -> StopQuestion:
    """Return the question of a sentence such as `better than RUN by 0.02`.

    `on this split` at its end asks about all images of the split, and before that `in balanced
    accuracy` about the mean over classes.

    Raises:
        UserError: the sentence is none of the four, its share is not between 0 and 1, or the metric
            is no mean over images.
    """
    words = " ".join(text.split())
    sentence = words.removesuffix(WHOLE_SPLIT).rstrip()
    whole_split = sentence != words
    sentence, _, metric = sentence.partition(" in ")
    if (metric := metric or "accuracy") not in MEANS:
        raise UserError(
            f"--until {text!r}: {metric} is no mean over images, so no value of it belongs to an"
            f" image and there is nothing to bet on. Ask about {' or '.join(MEANS)}."
        )
    for kind, pattern in _PATTERNS.items():
        if match := re.fullmatch(pattern, sentence, re.IGNORECASE):
            parts = match.groupdict()
            margin = float(parts.get("margin") or 0)
            if margin >= 1 or (kind in ("within", "width") and not margin):
                raise UserError(f"--until {text!r}: {margin:g} is not a share between 0 and 1.")
            return StopQuestion(kind, words, parts.get("run"), margin, whole_split, MEANS[metric])
    raise UserError(f"--until {text!r}: this is not a question. Ask {FORMS}.")


def class_weights(counts: Floats) -> Floats:
    """Return the weight of an image of each class with which a mean is the mean over classes.

    `counts` are the numbers of images of the classes in the split, [C]. With uniformly drawn
    images, the weighted mean of their results is the balanced accuracy.
    """
    present = counts > 0
    weights: Floats = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


class Results(NamedTuple):
    """Results of the images of a split so far, in random order.

    Attributes:
        right: float64 [n], 1 where this run is right and 0 where it is not.
        other: float64 [n], likewise of the other run; None: no other is compared.
        total: number of images of the split.
        weights: float64 [n], weight of each image in the metric; None: all have 1.
    """

    right: Floats
    other: Floats | None
    total: int
    weights: Floats | None = None

    def first(self, n: int) -> Results:
        """Return the results of the first n images."""
        parts = (None if part is None else part[:n] for part in (self.other, self.weights))
        other, weights = parts
        return Results(self.right[:n], other, self.total, weights)

    @property
    def largest(self) -> float:
        """Largest weight of an image, at least 1."""
        return 1.0 if self.weights is None else max(float(self.weights.max(initial=1.0)), 1.0)

    def weighted(self, values: Floats) -> Floats:
        """Return values times the weights, divided by `largest`."""
        return values if self.weights is None else values * self.weights / self.largest

    @property
    def differences(self) -> Floats:
        """Weighted differences of both runs, in [-1, 1] as bets take them."""
        assert self.other is not None
        return self.weighted(self.right - self.other)

    @property
    def accuracies(self) -> Floats:
        """Weighted results of this run, in [-1, 1] as bets take them."""
        return 2 * self.weighted(self.right) - 1


def decided_at(question: StopQuestion, results: Results, since: int = 1) -> tuple[Verdict, int]:
    """Return what the images show and how many of them that takes, however often it is checked.

    Widths are not checked before the image `since`.
    """
    population = results.total if question.whole_split else None
    if question.kind == "width":
        width = 2 * question.margin / results.largest
        n = first_narrow(results.accuracies, width, population, since)
        return ("open", len(results.right)) if n is None else ("narrow", n)
    margin = question.margin / results.largest
    return _decide(question.kind, results.differences, margin, population)


def answer(question: StopQuestion, results: Results) -> QuestionAnswer:
    """Return what the images so far answer, however often it is checked."""
    verdict, n = decided_at(question, results)
    used, largest = results.first(n), results.largest
    population = used.total if question.whole_split else None
    low, high = anytime_interval(used.accuracies, population)
    more: dict[str, Any] = {}
    if question.whole_split or used.weights is not None:
        more["accuracy_anytime_ci95"] = accuracy_anytime(used.right)
    if used.other is not None:
        ends = anytime_interval(used.differences, population)
        more["p"] = current_p(question, used)
        more["difference_anytime_ci95"] = tuple(end * largest for end in ends)
    return QuestionAnswer(
        question=question.text,
        verdict=verdict,
        n=n,
        total=used.total,
        anytime_ci95=(max((low + 1) * largest / 2, 0.0), min((high + 1) * largest / 2, 1.0)),
        whole_split=question.whole_split,
        **more,
    )


def _decide(
    kind: Kind, values: Floats, margin: float, population: int | None
) -> tuple[Verdict, int]:
    """Return the verdict and the number of images that it takes."""

    def above(bound: float, alpha: float, sign: int = 1) -> int:
        """Return the number of values that show a mean above `bound`, n + 1 if they do not."""
        shown = log_capital(sign * values, sign * bound, population) >= log(1 / alpha)
        return int(shown.argmax()) + 1 if shown.any() else len(values) + 1

    below = partial(above, sign=-1)
    # Of two verdicts only one can be wrong, so each has the whole level; two ends share it.
    verdicts: dict[Verdict, int]
    if kind == "differs":
        verdicts = {"better": above(0.0, ALPHA / 2), "worse": below(0.0, ALPHA / 2)}
    elif kind == "better":
        other: Verdict = "outside" if margin else "worse"
        verdicts = {"better": above(margin, ALPHA), other: below(margin, ALPHA)}
    else:
        outside = min(above(margin, ALPHA / 2), below(-margin, ALPHA / 2))
        verdicts = {"within": max(above(-margin, ALPHA), below(margin, ALPHA)), "outside": outside}
    verdict = min(verdicts, key=lambda name: verdicts[name])
    n = verdicts[verdict]
    return (verdict, n) if n <= len(values) else ("open", len(values))


def current_p(question: StopQuestion, results: Results) -> float | None:
    """Return p of what the question denies after the last image, valid at any number of them.

    None: the question is about a width.
    """
    if results.other is None:
        return None
    values, margin = results.differences, question.margin / results.largest
    population = results.total if question.whole_split else None
    if question.kind == "better":
        return anytime_p(values, margin, population)
    if question.kind == "differs":
        return two_sided_p(values, population)
    return max(anytime_p(sign * values, -margin, population) for sign in (1, -1))
