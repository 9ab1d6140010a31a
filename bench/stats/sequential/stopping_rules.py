"""Questions that stop a sequential run (`bench run --until`): parsing and evaluation.

A question is a claim about a run, such as "better than RUN by 0.02", or the width that its interval
must reach. The run ends once its images, in random order, answer it. Every verdict is read off one
confidence sequence of the difference (`bench.stats.sequential.betting`), so that all verdicts about
a pair of runs, in both directions and at any margin, are false together in at most 5 %.
"""

import re
from decimal import Decimal
from math import inf
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from bench.contracts.strategy import Floats
from bench.errors import UserError
from bench.stats.inference.paired import ALPHA
from bench.stats.sequential import betting
from bench.stats.sequential.betting import END_LEVEL, Population, is_coherent
from bench.store.questions import QuestionAnswer, Verdict

QuestionKind = Literal["differs", "better", "within", "width"]

FORMS = '"differs from RUN", "better than RUN by 0.02", "within 0.02 of RUN", "width 0.05"'
WHOLE_SPLIT = "on this split"
METRICS = {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"}
_NUMBER = r"(?P<margin>\d*\.?\d+)"
_PATTERNS: dict[QuestionKind, str] = {
    "differs": r"differs from (?P<run>\S+)",
    "better": rf"better than (?P<run>\S+)(?: by {_NUMBER})?",
    "within": rf"within {_NUMBER} of (?P<run>\S+)",
    "width": rf"width {_NUMBER}",
}


class Results(NamedTuple):
    """Results of the images scored so far, in random order.

    `values`, float64 [n] in [0, 1], are the metric's value of each image, and `baseline` those of
    the baseline run (None for a width). `weights` are the images' weights in the metric, None if
    all are 1. `total` and `max_weight`, at least 1, are about the whole split: bets on a scale that
    follows the data are not anytime-valid. The weights of all images of the split have the mean 1.
    """

    values: Floats
    baseline: Floats | None
    total: int
    weights: Floats | None = None
    max_weight: float = 1.0

    def first(self, n: int) -> Self:
        """Return the results of the first n images."""
        baseline, weights = (x if x is None else x[:n] for x in (self.baseline, self.weights))
        return self._replace(values=self.values[:n], baseline=baseline, weights=weights)

    def scaled(self, values: Floats) -> Floats:
        """Return weighted values divided by `max_weight`, so that they keep their range."""
        return values if self.weights is None else values * self.weights / self.max_weight

    @property
    def differences(self) -> Floats:
        """Scaled differences from the baseline, in [-1, 1], the range of the betting tests."""
        assert self.baseline is not None
        return self.scaled(self.values - self.baseline)

    @property
    def centred(self) -> Floats:
        """Scaled values of this run, mapped from [0, 1] to [-1, 1] before they are weighted."""
        return self.scaled(2 * self.values - 1)

    @property
    def split(self) -> Population:
        """The images of the split; those that are left have the rest of its weight, `total`."""
        seen = self.scaled(np.ones(len(self.values))).cumsum()
        return Population(self.total, self.total / self.max_weight - seen)


class StoppingRule(NamedTuple):
    """A parsed question about the accuracy of a run, or its difference from a baseline run."""

    kind: QuestionKind
    text: str  # the question as the user wrote it, whitespace normalised
    run: str | None = None  # the baseline run; None for a width
    margin: Decimal = Decimal(0)  # difference, or interval width, in [0, 1)
    whole_split: bool = False  # whether the claim is about this split only, not all images like it
    metric: str = "accuracy"  # or "balanced_accuracy"

    @property
    def subject(self) -> tuple[str | None, str, bool]:
        """What the confidence sequence is of. Questions about one subject share the sequence."""
        return self.run, self.metric, self.whole_split

    def population(self, results: Results) -> Population | None:
        """Return the split, or None if the question is about all images like those of the split."""
        return results.split if self.whole_split else None

    def tested(self, results: Results) -> Floats:
        """Return the values whose mean is tested, float64 [n] in [-1, 1]."""
        return results.centred if self.kind == "width" else results.differences

    def is_counted(self, results: Results) -> bool:
        """Return whether all images of the question are known, so that nothing is tested."""
        return self.whole_split and len(results.values) == results.total


def parse_question(text: str) -> StoppingRule:
    """Parse a question such as `better than RUN by 0.02`.

    It may be followed by `in balanced accuracy`, for the mean over classes, and then by `on this
    split`, which limits the claim to the images of the split. Raises UserError if the text matches
    none of the four forms, its number is out of range, or the metric is not a mean over images.
    """
    words = " ".join(text.split())
    sentence = words.removesuffix(WHOLE_SPLIT).rstrip()
    whole_split = sentence != words
    sentence, _, named = sentence.partition(" in ")
    metric = named or "accuracy"
    if metric not in METRICS:
        raise UserError(
            f"--until {text!r}: expected {' or '.join(METRICS)}, got {metric}. A test after every"
            " image needs a metric that is a mean over images."
        )
    for kind, pattern in _PATTERNS.items():
        if match := re.fullmatch(pattern, sentence, re.IGNORECASE):
            groups = match.groupdict()
            margin = Decimal(groups.get("margin") or 0)
            if margin >= 1 or (kind in ("within", "width") and not margin):
                raise UserError(
                    f"--until {text!r}: the number must be above 0 and below 1, got {margin:g}."
                )
            run = groups.get("run")
            return StoppingRule(kind, words, run, margin, whole_split, METRICS[metric])
    raise UserError(f"--until {text!r}: expected one of {FORMS}.")


def class_weights(counts: Floats) -> Floats:
    """Return weights, float64 [C], that make the mean over images equal balanced accuracy.

    Their mean over the images is 1. `counts` are images per class; a class without any has 0.
    """
    present = counts > 0
    weights: Floats = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def decided_at(question: StoppingRule, results: Results) -> tuple[Verdict, int]:
    """Return the first verdict that the images support, and the number of images it took.

    It is "open", with the number of all images, if the question is undecided. If a whole split is
    known, the verdict is that of counting all its images.
    """
    n_images = len(results.values)
    if question.is_counted(results):
        verdict, n = _first_verdict(question, results, inf)
        return verdict if n <= n_images else "tied", n_images
    verdict, n = _first_verdict(question, results, END_LEVEL)
    values, population = question.tested(results.first(n)), question.population(results)
    if n <= n_images and not is_coherent(values, population):
        verdict, n = _first_verdict(question, results, inf)
    return (verdict, n) if n <= n_images else ("open", n_images)


def _first_verdict(question: StoppingRule, results: Results, level: float) -> tuple[Verdict, int]:
    """Return the verdict that the ends of the interval give first, and the number of images.

    The interval is `interval_ends` at `level`. The number is n + 1 if the ends give no verdict.
    """
    values, population = question.tested(results), question.population(results)
    margin = question.margin / Decimal(results.max_weight)
    never = len(values) + 1
    if question.kind == "width":
        return "narrow", betting.first_narrow(values, float(2 * margin), population, level)

    def first_above(bound: Decimal, sign: int = 1) -> int:
        """Return after how many images the lower end of sign × difference is above the bound."""
        above = betting.log_capital(sign * values, bound, population) >= level
        return int(above.argmax()) + 1 if above.any() else never

    verdicts: dict[Verdict, int]
    if question.kind == "within":
        within = max(first_above(-margin), first_above(-margin, sign=-1))
        outside = min(first_above(margin), first_above(margin, sign=-1))
        verdicts = {"within": within, "outside": outside}
    else:
        refuted: Verdict = "outside" if margin else "worse"
        verdicts = {"better": first_above(margin), refuted: first_above(-margin, sign=-1)}
    verdict = min(verdicts, key=lambda name: verdicts[name])
    return verdict, verdicts[verdict]


def answer(question: StoppingRule, results: Results) -> QuestionAnswer:
    """Return the verdict with anytime-valid intervals and p-value after the deciding image.

    If the question is undecided, they are those after the last image. If all images of a split were
    counted, there are none of these, but the exact difference.
    """
    verdict, n = decided_at(question, results)
    used = results.first(n)
    scale, population = used.max_weight, question.population(used)
    more: dict[str, Any] = {}
    if question.is_counted(used):
        if used.baseline is not None:
            more["difference"] = float(scale * used.differences.mean())
    else:
        more["level"] = ALPHA
        ends = scale * np.array(betting.anytime_interval(used.centred, population))
        more["anytime_ci95"] = np.clip((ends + 1) / 2, 0, 1).tolist()
        if question.whole_split or used.weights is not None:
            more["accuracy_anytime_ci95"] = betting.accuracy_anytime(used.values)
        if used.baseline is not None:
            ends = scale * np.array(betting.anytime_interval(used.differences, population))
            more["p"] = current_p(question, used)
            more["difference_anytime_ci95"] = np.clip(ends, -1, 1).tolist()
    return QuestionAnswer(
        question=question.text,
        verdict=verdict,
        n=n,
        total=used.total,
        whole_split=question.whole_split,
        **more,
    )


def current_p(question: StoppingRule, results: Results) -> float | None:
    """Return the anytime-valid p-value of the null hypothesis after the last image.

    With d the difference from the baseline and m the margin, the hypothesis is d = m for "better"
    and "differs", and |d| >= m for "within". It is at most 0.05 exactly if the confidence sequence
    has no such d. None for a width.
    """
    if results.baseline is None:
        return None
    values, margin = results.differences, question.margin / Decimal(results.max_weight)
    population = question.population(results)
    if question.kind == "within":
        p = min(1.0, 2 * betting.outside_p(values, margin, population))
    else:
        p = betting.two_sided_p(values, margin, population)
    if 0 < p <= ALPHA and not is_coherent(values, population):
        return 1.0  # every mean is rejected, so nothing is shown; a p of 0 needs no test
    return p
