"""Anytime-valid tests and confidence sequences by betting: valid at every number of images.

A gambler bets on the values of images in random order against a null hypothesis about their mean.
The capital starts at 1. Under the null hypothesis it is a test martingale, so the probability that
it *ever* reaches 1/α is at most α (Ville 1939); the hypothesis is then rejected at level α. Results
may therefore be checked after every image, and scoring may stop at any.

The capital is the mixture over constant bets of Waudby-Smith & Ramdas, "Estimating means of bounded
random variables by betting" (JRSS B 86, 2024). It does not depend on the order of the values if
images are drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from math import exp, inf, log
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench.stats.many import holm
from bench.stats.paired import ALPHA

MAX_STEPS = 45  # bisection steps: ends are exact to 1e-13
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
BETS = (_NODES + 1) / 2  # fractions of the capital staked: uniform prior on [0, 1] in 64 points
LOG_PRIOR = np.log(_WEIGHTS / 2)
ROUNDING = 1e-6  # sums of values that differ by less count as equal


class Population(NamedTuple):
    """The images whose mean is asked for, if values are drawn from them without replacement."""

    size: int  # number of images
    rest: Floats  # largest possible sum of the values left after each one, float64 [n or more]

    def excludes(self, values: Floats, mean: float | Decimal) -> NDArray[np.bool_]:
        """Return after which values "the mean is at most `mean`" is impossible, bool [n].

        Sums are compared and nothing is divided, so that a decimal such as 0.07 is exact.
        """
        least = values.cumsum() - self.rest[: len(values)]
        return np.asarray(least > float(self.size * mean) + ROUNDING)


def log_capital(
    values: Floats, mean: float | Decimal, population: Population | None = None
) -> Floats:
    """Return the logarithm of the capital after each value, float64 [n].

    The null hypothesis is that the mean is at most `mean`; to test "at least", negate `values` and
    `mean`. `values` are float64 [n] in [-1, 1], in random order. With a `population`, they are
    drawn from it without replacement, and the mean is that of its images.
    """
    if not len(values):
        return np.zeros(0)
    expected = _expected(values, mean, population)
    capital = _log_sum(np.cumsum(_log_growth(values, expected), axis=0) + LOG_PRIOR)
    if population is not None:
        capital[population.excludes(values, mean)] = inf
    return capital


def _expected(values: Floats, mean: float | Decimal, population: Population | None) -> Floats:
    """Return the mean of the remaining images before each value under the null hypothesis."""
    if population is None:
        return np.full(len(values), float(mean))
    before = np.cumsum(values) - values
    total, remaining = float(population.size * mean), population.size - np.arange(len(values))
    return np.asarray((total - before) / remaining)  # section 5 of the paper


def _log_growth(values: Floats, expected: Floats) -> Floats:
    """Return the log of each value's factor on the capital of each bet, float64 [n, bets]."""
    expected = np.clip(expected, -1 + 1e-12, 1.0)
    returns = (values - expected) / (1 + expected)
    return np.log1p(np.multiply.outer(returns, BETS))


def _log_sum(logs: Floats) -> Floats:
    largest = logs.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(logs - largest[..., None]).sum(axis=-1)))


def anytime_p(values: Floats, mean: float | Decimal, population: Population | None = None) -> float:
    """Return the anytime-valid p-value of the null hypothesis "the mean is at most `mean`".

    It is 1 / capital after the last value, at most 1.
    """
    capital = log_capital(values, mean, population)
    return exp(-max(float(capital[-1]), 0.0)) if len(values) else 1.0


def two_sided_p(values: Floats, population: Population | None = None) -> float:
    """Return the anytime-valid two-sided p-value of the null hypothesis "the mean is 0"."""
    sides = anytime_p(values, 0.0, population), anytime_p(-values, 0.0, population)
    return min(1.0, 2 * min(sides))


def anytime_interval(values: Floats, population: Population | None = None) -> tuple[float, float]:
    """Return the 95 % confidence sequence of the mean after the last value.

    With a probability of at least 95 %, the intervals after every number of values contain the
    mean. Each end inverts a one-sided test at 2.5 %, so the interval excludes 0 exactly if
    `two_sided_p` is below 5 %. No end is a mean that the population cannot have. If the tests
    reject every mean, the interval lies between the two ends.
    """
    *_, (low, _) = _bisection(values, population)
    *_, (high, _) = _bisection(-values, population)
    return min(low, -high), max(low, -high)


def _bisection(values: Floats, population: Population | None) -> Iterator[tuple[float, float]]:
    """Yield ever closer bounds of the largest mean that is rejected after the last value."""
    low, high, threshold, n = -1.0, 1.0, log(2 / ALPHA), len(values)
    if population is not None and n:  # only possible means
        total, rest = values.sum(), population.rest[n - 1]
        low, high = (total - rest) / population.size, (total + rest) / population.size
    yield low, high
    counts = np.ones(n, dtype=np.int64)
    if population is None:  # the order does not matter
        values, counts = np.unique(values, return_counts=True)
    for _ in range(MAX_STEPS if n else 0):
        middle = (low + high) / 2
        growth = _log_growth(values, _expected(values, middle, population))
        rejected = _log_sum((counts[:, None] * growth).sum(axis=0) + LOG_PRIOR) >= threshold
        low, high = (middle, high) if rejected else (low, middle)
        yield low, high


def accuracy_anytime(right: Floats) -> tuple[float, float]:
    """Return the `anytime_interval` of the mean of values in [0, 1], such as an accuracy."""
    low, high = anytime_interval(2 * right - 1)
    return (low + 1) / 2, (high + 1) / 2


def is_narrow(values: Floats, width: float, population: Population | None = None) -> bool:
    """Return whether `anytime_interval` is at most `width` wide, without computing it in full."""
    ends = (_bisection(side, population) for side in (values, -values))
    for (low, low_most), (high, high_most) in zip(*ends, strict=True):
        if -high - low <= width:  # further steps only narrow it
            return True
        if -high_most - low_most > width:
            return False
    return False


def first_narrow(
    values: Floats, width: float, population: Population | None = None, since: int = 1
) -> int | None:
    """Return after how many values `anytime_interval` is at most `width` wide, or None if never.

    It is checked after every value up to 100, then each time their number has grown by 2 %, and not
    before value `since`.
    """
    n = 1
    while n <= len(values):
        # A confidence sequence is never narrower than the interval for a single n.
        may_be_narrow = population is not None or 2 * 1.96 * values[:n].std() <= width * n**0.5
        if n >= since and may_be_narrow and is_narrow(values[:n], width, population):
            return n
        n += max(1, n // 50)
    return None


def interval_course(
    values: Floats, points: int = 60, population: Population | None = None
) -> list[tuple[int, float, float]]:
    """Return (n, low, high) of `anytime_interval` at up to `points` evenly spaced n."""
    counts = np.unique(np.linspace(1, len(values), min(points, len(values))).round().astype(int))
    return [(int(n), *anytime_interval(values[:n], population)) for n in counts]


Stop = Literal["best", "ranked"]


class Standings(NamedTuple):
    """State of a comparison of many methods after the images so far."""

    out: dict[str, int]  # eliminated method → number of its images when it was eliminated
    open: tuple[str, ...]  # methods that need more images, best first; empty once decided
    leader: str  # most accurate of the methods with the most images
    unresolved: tuple[tuple[str, str], ...] = ()  # pairs neither ordered nor shown equal

    @property
    def decided(self) -> bool:
        """Whether the study's question is answered."""
        return not self.open


def standings(results: Mapping[str, Floats], stop: Stop, margin: float | None = None) -> Standings:
    """Return which methods are eliminated, and which need more images.

    `results` are float64 [n] in [0, 1] by method, in the common random order; a method eliminated
    earlier has fewer images. `best` continues until one method remains or, with a margin, until the
    leader is shown to be within it of all that remain; `ranked` continues until every pair is
    ordered or shown to be equal. Methods whose difference is below `margin` count as equal.
    """
    most = max(map(len, results.values()))
    order = sorted(results, key=lambda m: (-len(results[m]), -float(results[m].mean())))
    if stop == "best":
        return _best(results, order, margin, most)
    return _ranked(results, order, margin)


def _best(
    results: Mapping[str, Floats], order: Sequence[str], margin: float | None, most: int
) -> Standings:
    """Return the sequential model confidence set (Arnold, Gavrilopoulos, Schulz & Ziegel, 2024).

    The null hypothesis that a method is the best is tested by the mean of the capitals of all other
    methods against it, which is a test martingale too. The probability that a best method is ever
    eliminated is at most α. With a margin, elimination and equality are tested at α / 2 each.
    """
    alpha = ALPHA if margin is None else ALPHA / 2
    out = {}
    for method, own in results.items():
        paths = np.stack([_capital(results[o], own) for o in results if o != method], axis=-1)
        mean = _log_sum(paths) - log(len(results) - 1)
        if (rejected := np.flatnonzero(mean >= log(1 / alpha))).size:
            out[method] = int(rejected[0]) + 1
    remaining = tuple(m for m in order if m not in out and len(results[m]) == most)
    leader = remaining[0] if remaining else order[0]
    if margin is not None and len(remaining) > 1:
        threshold = log(2 * (len(results) - 1) / ALPHA)  # ALPHA / 2, Bonferroni-corrected
        equal = [
            log_capital(results[leader] - results[other], -margin).max() >= threshold
            for other in remaining[1:]
        ]
        remaining = (leader,) if all(equal) else remaining
    return Standings(out, remaining if len(remaining) > 1 else (), leader)


def _capital(other: Floats, own: Floats) -> Floats:
    """Return the log capital against "`own` is no worse than `other`" after each image of `own`.

    It is constant from the image at which `other` was eliminated.
    """
    shared = min(len(other), len(own))
    path = log_capital(other[:shared] - own[:shared], 0.0)
    return np.concatenate([path, np.full(len(own) - shared, path[-1])])


def _ranked(results: Mapping[str, Floats], order: Sequence[str], margin: float | None) -> Standings:
    """Test every pair, with p = 1 / largest capital so far, corrected by Holm's method (1979).

    With a margin, differences and equalities are tested at α / 2 each.
    """
    alpha = ALPHA if margin is None else ALPHA / 2
    pairs = list(combinations(order, 2))
    differ, equal = np.ones((2, len(pairs)))
    for place, (a, b) in enumerate(pairs):
        shared = min(len(results[a]), len(results[b]))
        values = results[a][:shared] - results[b][:shared]
        differ[place] = min(1.0, 2 * min(_smallest_p(sign * values, 0.0) for sign in (1, -1)))
        if margin is not None:
            equal[place] = max(_smallest_p(sign * values, -margin) for sign in (1, -1))
    resolved = np.minimum(holm(differ), holm(equal)) <= alpha
    unresolved = tuple(pairs[place] for place in np.flatnonzero(~resolved))
    still_open = {method for pair in unresolved for method in pair}
    return Standings({}, tuple(m for m in order if m in still_open), order[0], unresolved)


def _smallest_p(values: Floats, mean: float) -> float:
    """Return the smallest `anytime_p` after any number of values, itself anytime-valid."""
    return exp(-max(float(log_capital(values, mean).max()), 0.0))
