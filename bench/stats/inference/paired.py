"""Paired tests of two classifiers on the same images."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import erfc, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts.strategy import Bools, Floats, Ints
from bench.store.formats.decisions import Decisions, shared_rows
from bench.store.formats.fields import Document, Number, Positive, Share

ALPHA = 0.05
BISECTIONS = 45  # of the ends of an interval, which are then exact to 1e-13
SAMPLES_AT_ONCE = 8192
Z95 = 1.959963984540054  # half-width of a normal 95 % interval in standard errors

Counts = Ints | int


class Difference(Document):
    """The difference of two runs or methods in a metric, B minus A, by a single comparison."""

    estimate: Number  # value of B minus value of A
    interval: tuple[Number, Number]  # contains the true difference with probability 1 - `level`
    p: Share | None  # two-sided p-value of the null hypothesis of no difference; None: not tested
    level: Share  # significance level of the test and the interval
    method: str
    """Test and interval: `mcnemar`, `permutation`, `influence` (z test of influence values; if a
    class has fewer than 10 images, `approximate`), `bootstrap`, `seeds` (t test over images and
    seeds), or `independent` (the interval alone, from the intervals of both)."""
    n: Positive | None  # number of images that both have; None if theirs differ
    p_equal: Share | None = None  # p-value of the test that it is smaller than a margin, if given

    @property
    def significant(self) -> bool:
        """Whether a difference is shown."""
        return self.p is not None and self.p <= self.level


def tested_difference(
    method: str, n: int | None, estimate: float, interval: tuple[float, float], p: float | None
) -> Difference:
    """Return a difference whose test and interval have the level of 5 %."""
    return Difference(estimate=estimate, interval=interval, p=p, level=ALPHA, method=method, n=n)


class Paired(Document):
    """Accuracies of run A, the baseline, and run B on the same samples."""

    accuracy_a: float  # accuracy of A
    accuracy_b: float  # accuracy of B
    difference: Difference
    """Difference of the accuracies: McNemar's exact test, with Tango's score interval, corrected
    for continuity and skewness, and widened to include 0 if the test does not reject. Of items that
    are about the same images, a permutation test over these images."""
    wins: int  # number of samples that only B gets right
    losses: int  # number of samples that only A gets right
    ties: int  # number of samples that both or neither get right


class ClassDifference(Paired):
    """The paired comparison on the samples of one class."""

    name: str = Field(alias="class")  # name of the class
    p_adjusted: float
    """p-value adjusted over classes for the false discovery rate (Benjamini & Hochberg 1995)."""


def changed_samples(a: Decisions, b: Decisions, show: str = "changed") -> tuple[Ints, Ints]:
    """Return the rows in A, the baseline, and in B of the shared images that `show` selects.

    `show` is `wins` (only B is right), `losses` (only A is right), `wrong` (both are wrong) or
    `changed` (the predictions differ). Any other text, which the address of a page of `bench view`
    may have, counts as `changed`.
    """
    rows_a, rows_b = shared_rows(a, b)
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    kinds = {
        "changed": a.predictions[rows_a] != b.predictions[rows_b],
        "wins": right_b & ~right_a,
        "losses": right_a & ~right_b,
        "wrong": ~right_a & ~right_b,
    }
    kept = kinds.get(show, kinds["changed"])
    return rows_a[kept], rows_b[kept]


def paired_wins(decided: Iterable[Decisions]) -> NDArray[np.int32]:
    """Return the number of samples that run i gets right and run j gets wrong, int32 [R, R].

    A pair is counted on the samples that both have. One matrix product replaces R² pairings. It is
    taken over a few thousand samples at a time, and only two booleans per run and sample are kept.
    """
    column_of: dict[str, int] = {}  # sample id → column of the matrices, by first occurrence
    answers = []  # for each run, the columns of its samples and whether they are right
    for ids, runs in groupby(decided, key=lambda run: run.sample_ids):  # most have the same samples
        samples = ids.to_pylist()
        columns = np.array([column_of.setdefault(name, len(column_of)) for name in samples], int)
        answers += [(columns, run.correct) for run in runs]
    right, wrong = np.zeros((2, len(answers), len(column_of)), dtype=bool)
    for row, (columns, correct) in enumerate(answers):
        right[row, columns], wrong[row, columns] = correct, ~correct
    wins = np.zeros((len(answers), len(answers)), dtype=np.int32)
    for start in range(0, len(column_of), SAMPLES_AT_ONCE):
        part = np.s_[:, start : start + SAMPLES_AT_ONCE]
        wins_of_part = right[part].astype(np.float32) @ wrong[part].astype(np.float32).T
        wins += wins_of_part.astype(np.int32)  # float32 is exact up to 16 million
    return wins


def paired_test(right_a: Bools, right_b: Bools) -> Paired:
    """Return McNemar's exact test of two runs, with an interval of their difference.

    The test (Psychometrika 1947) is a two-sided sign test on the samples that exactly one run gets
    right. The interval is `difference_interval`, widened to include 0 if the test does not reject.
    """
    [pair] = _paired_tests(np.zeros(len(right_a), dtype=np.int64), right_a, right_b)
    return pair


def _paired_tests(groups: Ints, right_a: Bools, right_b: Bools) -> list[Paired]:
    """Return `paired_test` of each group that has samples; `groups` is int64 [n], from 0 on."""
    only_a, only_b = right_a & ~right_b, right_b & ~right_a
    masks = (np.ones(len(groups)), right_a, right_b, only_b, only_a)
    counts = np.stack([np.bincount(groups, weights=mask) for mask in masks]).astype(np.int64)
    counts = counts[:, counts[0] > 0]
    n, _, _, wins, losses = counts
    ends = np.stack(difference_interval(wins, losses, n), axis=1).tolist()
    return [
        Paired(
            accuracy_a=of_a / size,
            accuracy_b=of_b / size,
            difference=tested_difference(
                "mcnemar", size, (won - lost) / size, with_zero(interval, p), p
            ),
            wins=won,
            losses=lost,
            ties=size - won - lost,
        )
        for interval, p, (size, of_a, of_b, won, lost) in zip(
            ends, mcnemar(wins, losses).tolist(), counts.T.tolist(), strict=True
        )
    ]


def with_zero(interval: tuple[float, float], p: float) -> tuple[float, float]:
    """Return the interval of a difference, widened to include 0 if its p-value exceeds 5 %."""
    return interval if p <= ALPHA else (min(interval[0], 0.0), max(interval[1], 0.0))


def difference_interval(wins: Counts, losses: Counts, n: Counts) -> tuple[Floats, Floats]:
    """Return the ends of 95 % score intervals of differences of two paired proportions.

    Arguments and ends have one shape. An interval has the differences that a score test does not
    reject (Tango, Statistics in Medicine 17, 1998), corrected for continuity and for the skewness
    of few discordant pairs (`skew_corrected`). `n` includes ties.
    """
    observed = np.asarray(np.subtract(wins, losses) / n)
    start = np.stack([observed, observed])
    limits = np.stack([np.full_like(observed, -1.0), np.full_like(observed, 1.0)])
    low, high = bisected(lambda d: abs(difference_z(wins, losses, n, d)) > Z95, start, limits)
    return low, high


def bisected(rejected: Callable[[Floats], Bools], inside: Floats, outside: Floats) -> Floats:
    """Return the last values from `inside` on towards `outside` that are not `rejected`."""
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        beyond = rejected(middle)
        inside, outside = np.where(beyond, inside, middle), np.where(beyond, middle, outside)
    return inside


def equality_p(wins: int, losses: int, n: int, margin: float) -> float:
    """Return the p-value of two one-sided score tests of equality, as `difference_interval`.

    The null hypothesis is a difference of at least `margin` in absolute value. `n` includes ties.
    """
    low, high = difference_z(wins, losses, n, np.array([-margin, margin]))
    return float(normal_cdf(np.array([-low, high])).max())


def difference_z(wins: Counts, losses: Counts, n: Counts, d: Floats) -> Floats:
    """Return the score of differences `d`, positive where the observed difference is larger.

    Given d, the most likely share of losses is the larger root x of Tango's equation
    2 n x² + linear · x + constant = 0, that of wins is x + d, and of discordant images 2 x + d.
    """
    linear = (2 * n - wins + losses) * d - wins - losses
    constant = -losses * d * (1 - d)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0))
    discordant = (root - linear) / (2 * n) + d
    # An image's difference D is -1, 0 or 1, so that E D = E D³ = d, and E D² = 2 x + d.
    variance = np.maximum(discordant - d**2, 1e-30)
    third_moment = d - 3 * d * discordant + 2 * d**3
    deviation = np.subtract(wins, losses) / n - d
    away = np.maximum(0.0, abs(deviation) - 0.5 / n) / np.sqrt(variance / n)
    sign = np.sign(deviation)
    skewness = sign * (third_moment / variance**1.5 / np.sqrt(n))
    return np.asarray(sign * skew_corrected(away, skewness))


def skew_corrected(away: Any, skewness: Any) -> Any:
    """Return the normal deviate of a mean that is `away` standard errors from its expectation.

    `skewness` is that of the mean, positive if its longer tail is on that side. The deviate is the
    root z of away = z + skewness · (z² − 1) / 6 (Gart & Nam, Biometrics 44, 1988), without a
    division by 0.
    """
    sixth = skewness / 6
    return 2 * (away + sixth) / (1 + np.sqrt(np.maximum(0.0, 1 + 4 * sixth * (away + sixth))))


def mcnemar(wins: Any, losses: Any) -> Any:
    """Return the two-sided p-value of McNemar's exact test, a number or array as the counts.

    It is twice the lower tail of Binomial(wins + losses, 1/2) at the smaller count, at most 1. The
    logarithm of P(k) is that of P(k - 1) plus log((n + 1 - k) / k), and P(0) is 1 / 2ⁿ.
    """
    fewer = np.ravel(np.minimum(wins, losses))
    p = np.empty(len(fewer))
    # The tails of each binomial are computed once: a million pairs of runs have a few thousand.
    trials, group = np.unique(np.add(wins, losses).ravel(), return_inverse=True)
    pairs_of_group = np.split(np.argsort(group), np.cumsum(np.bincount(group)))  # the last is empty
    for n, pairs in zip(trials.tolist(), pairs_of_group, strict=False):
        k = np.arange(1, n // 2 + 1, dtype=np.longdouble)  # nearly exact on most machines
        logarithms = np.cumsum(np.append(n * np.log(np.longdouble(0.5)), np.log((n + 1 - k) / k)))
        p[pairs] = np.minimum(1.0, 2 * np.cumsum(np.exp(logarithms))[fewer[pairs]])
    return p.reshape(np.shape(wins))


def normal_cdf(x: Any) -> Floats:
    """Return the distribution function of the standard normal distribution, float64 as `x`.

    It is `scipy.special.ndtr`, whose import takes longer than the rest of a command.
    """
    return np.asarray(np.vectorize(erfc, otypes=[np.float64])(-np.asarray(x) / sqrt(2)) / 2)


def class_differences(
    labels: Ints, right_a: Bools, right_b: Bools, classes: Sequence[str]
) -> list[ClassDifference]:
    """Return the paired comparison of each class that has samples, in label order."""
    pairs = _paired_tests(labels, right_a, right_b)
    adjusted = _adjusted(np.array([pair.difference.p for pair in pairs], dtype=float)).tolist()
    return [
        ClassDifference(**dict(pair), name=classes[label], p_adjusted=p)
        for label, pair, p in zip(
            np.flatnonzero(np.bincount(labels)).tolist(), pairs, adjusted, strict=True
        )
    ]


def _adjusted(p: Floats) -> Floats:
    """Return p-values adjusted for the false discovery rate (Benjamini & Hochberg, 1995)."""
    order = np.argsort(p)
    scaled = p[order] * (len(p) / np.arange(1, len(p) + 1))
    smallest = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.clip(smallest, 0, 1)[np.argsort(order)]
