"""Questions that end a run: what is asked, and what the images so far answer."""

from __future__ import annotations

import re
from math import log
from typing import Literal, NamedTuple

import numpy as np

from bench.contracts.strategy import Floats
from bench.errors import UserError
from bench.stats.sequential import (
    ALPHA,
    anytime_interval,
    anytime_p,
    first_narrow,
    largest_log_capital,
)
from bench.store.fields import Count, Document, Share

Kind = Literal["differs", "better", "within", "width"]
Verdict = Literal["better", "worse", "within", "outside", "narrow", "open"]

FORMS = '"differs from RUN", "better than RUN by 0.02", "within 0.02 of RUN", "width 0.05"'
WHOLE_SPLIT = "on this split"
_NUMBER = r"(?P<margin>\d*\.?\d+)"
_PATTERNS: dict[Kind, str] = {
    "differs": r"differs from (?P<run>\S+)",
    "better": rf"better than (?P<run>\S+)(?: by {_NUMBER})?",
    "within": rf"within {_NUMBER} of (?P<run>\S+)",
    "width": rf"width {_NUMBER}",
}


class Question(NamedTuple):
    """A question about a run's accuracy, alone or against that of another run."""

    kind: Kind
    text: str  # the question as it was asked
    run: str | None = None  # the run that it is compared with; None: a width is asked for
    margin: float = 0.0  # share that "better", "within" and "width" name
    whole_split: bool = False  # whether it is about the images of this split, not all like these


class Answer(Document):
    """What images in random order answer, however often somebody looked."""

    question: str  # as it was asked
    verdict: Verdict
    """What is shown; "open": nothing yet. "outside" denies "within" and "better by"."""
    n: Count  # number of images that the answer takes: where it was decided, or all so far
    total: Count  # number of images of the split
    p: Share | None = None
    """p of what the question denies after these n images, valid at any n; None for a width."""
    anytime_ci95: tuple[float, float]
    """95 % interval of the difference, or of the accuracy, valid at any n."""
    whole_split: bool = False  # whether all images of this split are meant


def parse_question(text: str) -> Question:
    """Return the question of a sentence such as `better than RUN by 0.02`.

    `on this split` at its end asks about all images of the split.

    Raises:
        UserError: the sentence is none of the four, or its share is not between 0 and 1.
    """
    words = " ".join(text.split())
    asked = words.removesuffix(WHOLE_SPLIT).rstrip()
    for kind, pattern in _PATTERNS.items():
        if match := re.fullmatch(pattern, asked, re.IGNORECASE):
            parts = match.groupdict()
            margin = float(parts.get("margin") or 0)
            if margin >= 1 or (kind in ("within", "width") and not margin):
                raise UserError(f"--until {text!r}: {margin:g} is no share between 0 and 1.")
            return Question(kind, words, parts.get("run"), margin, asked != words)
    raise UserError(f"--until {text!r}: this is no question. Ask {FORMS}.")


def class_weights(counts: Floats) -> Floats:
    """Return the weight of an image of each class with which a mean is the mean over classes.

    `counts` are the numbers of images of the classes in the split, [C]. With uniformly drawn
    images, the weighted mean of their results is the balanced accuracy.
    """
    present = counts > 0
    weights: Floats = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def answer(question: Question, values: Floats, total: int, weights: Floats | None = None) -> Answer:
    """Return what the images so far answer; the same for every number of looks at them.

    Args:
        question: the question.
        values: float64 [n], per image in random order: its result in this run less that in the
            other run (-1, 0 or 1); for a width, 1 where the run is right and 0 where it is not.
        total: number of images of the split.
        weights: float64 [n], weight of each image; None: all have 1.
    """
    width = question.kind == "width"
    population = total if question.whole_split else None
    largest = 1.0 if weights is None else max(float(weights.max(initial=1.0)), 1.0)
    scaled = values * (1.0 if weights is None else weights) / largest
    if width:  # from [0, 1] to [-1, 1]
        scaled = 2 * scaled - 1
    size = largest / (2 if width else 1)  # of a difference of 1 on the scale of the bets
    margin = question.margin / size
    verdict, n = _decide(question.kind, scaled, margin, population)
    low, high = anytime_interval(scaled[:n], population)
    shift = 1.0 if width else 0.0
    return Answer(
        question=question.text,
        verdict=verdict,
        n=n,
        total=total,
        p=_p(question.kind, scaled[:n], margin, population),
        anytime_ci95=((low + shift) * size, (high + shift) * size),
        whole_split=question.whole_split,
    )


def _decide(
    kind: Kind, values: Floats, margin: float, population: int | None
) -> tuple[Verdict, int]:
    """Return the verdict and the number of images that it takes."""
    if kind == "width":
        n = first_narrow(values, margin, population)
        return ("open", len(values)) if n is None else ("narrow", n)

    def above(bound: float, alpha: float) -> int:
        """Return the number of values that show a mean above `bound`; one too many: not shown."""
        shown = largest_log_capital(values, bound, population) >= log(1 / alpha)
        return int(shown.argmax()) + 1 if shown.any() else len(values) + 1

    def below(bound: float, alpha: float) -> int:
        shown = largest_log_capital(-values, -bound, population) >= log(1 / alpha)
        return int(shown.argmax()) + 1 if shown.any() else len(values) + 1

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


def _p(kind: Kind, values: Floats, margin: float, population: int | None) -> float | None:
    if kind == "width":
        return None
    if kind == "better":
        return anytime_p(values, margin, population)
    bound = -margin if kind == "within" else 0.0
    ends = anytime_p(values, bound, population), anytime_p(-values, bound, population)
    return max(ends) if kind == "within" else min(1.0, 2 * min(ends))
