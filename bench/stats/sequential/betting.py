"""Anytime-valid tests and confidence sequences by betting: valid at every number of images.

A gambler bets on the values of images in random order against a null hypothesis about their mean.
The capital starts at 1. Under the null hypothesis it is a test martingale, so the probability that
it *ever* reaches 1/α is at most α (Ville 1939); the hypothesis is then rejected at level α. Results
may therefore be checked after every image, and scoring may stop at any.

The capital is the mixture over constant bets of Waudby-Smith & Ramdas, "Estimating means of bounded
random variables by betting" (JRSS B 86, 2024). It does not depend on the order of the values if
images are drawn with replacement.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from itertools import combinations
from math import exp, inf, log
from typing import Literal, NamedTuple

import numpy as np

from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.libraries import optimize, special
from bench.stats.inference.difference_tests import holm
from bench.stats.inference.paired import ALPHA

END_LEVEL = log(2 / ALPHA)  # log capital that rejects a mean: each end is tested at 2.5 %
END_ERROR = 1e-11  # of an end of an interval
# Beta prior of the share of an audit that agrees: mean 0.984, worth 30 images. With 30 of 30
# agreeing, it shows at least 90 % of 360 images to agree; a uniform prior shows 82 %. With 28 of
# 30, both show the same. Coverage does not depend on the prior.
SHARE_PRIOR = (30.0, 0.5)
ROUNDING = 1e-6  # sums of values that differ by less count as equal


class Population(NamedTuple):
    """The images whose mean is asked for, if values are drawn from them without replacement."""

    size: int  # number of images
    rest: Floats  # largest possible sum of the values left after each one, float64 [n or more]

    def excludes(self, values: Floats, mean: float | Decimal) -> Bools:
        """Return after which values "the mean is at most `mean`" is impossible, bool [n].

        Sums are compared and nothing is divided, so that a decimal such as 0.07 is exact.
        """
        least = values.cumsum() - self.rest[: len(values)]
        return np.asarray(least > float(self.size * mean) + ROUNDING)


@cache
def _bets() -> tuple[Floats, Floats]:
    """Return fractions of the capital, and the logarithms of a uniform prior, float64 [64] each."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    return (nodes + 1) / 2, np.log(weights / 2)


def log_capital(
    values: Floats, mean: float | Decimal, population: Population | None = None, since: int = 0
) -> Floats:
    """Return the logarithm of the capital after each value from index `since` on, float64 [n].

    The null hypothesis is that the mean is at most `mean`; to test "at least", negate `values` and
    `mean`. `values` are float64 in [-1, 1], in random order. With a `population`, they are drawn
    from it without replacement, and the mean is that of its images.
    """
    if population is None:  # equal values have equal factors
        distinct, places = np.unique(values, return_inverse=True)
        factors = _log_growth(distinct, np.full(len(distinct), float(mean)))
        before = np.bincount(places[:since], minlength=len(distinct)) @ factors
        growth = factors[places[since:]]
    else:
        factors = _log_growth(values, _expected(values, mean, population))
        before, growth = factors[:since].sum(axis=0), factors[since:]
    capital = _log_sum(np.cumsum(growth, axis=0) + before + _bets()[1])
    if population is not None:
        capital[population.excludes(values, mean)[since:]] = inf
    return capital


def _expected(values: Floats, mean: float | Decimal, population: Population) -> Floats:
    """Return the mean of the remaining images before each value under the null hypothesis."""
    before = np.cumsum(values) - values
    total, remaining = float(population.size * mean), population.size - np.arange(len(values))
    return np.asarray((total - before) / remaining)  # section 5 of the paper


def _log_growth(values: Floats, expected: Floats) -> Floats:
    """Return the log of each value's factor on the capital of each bet, float64 [n, bets]."""
    expected = np.clip(expected, -1 + 1e-12, 1.0)
    returns = (values - expected) / (1 + expected)
    return np.log1p(np.multiply.outer(returns, _bets()[0]))


def _log_sum(logs: Floats) -> Floats:
    largest = logs.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(logs - largest[..., None]).sum(axis=-1)))


def anytime_p(values: Floats, mean: float | Decimal, population: Population | None = None) -> float:
    """Return the p-value of "the mean is at most `mean`": 1 / the largest capital so far."""
    return exp(-float(log_capital(values, mean, population).max(initial=0.0)))


def two_sided_p(
    values: Floats, mean: float | Decimal, population: Population | None = None
) -> float:
    """Return the anytime-valid p-value of "the mean is `mean`", each side tested at half of it."""
    return min(1.0, 2 * min(anytime_p(s * values, s * mean, population) for s in (1, -1)))


def outside_p(
    values: Floats, margin: float | Decimal, population: Population | None = None
) -> float:
    """Return the anytime-valid p-value of "the mean is at least `margin` in absolute value"."""
    return max(anytime_p(sign * values, -margin, population) for sign in (1, -1))


def anytime_interval(values: Floats, population: Population | None = None) -> tuple[float, float]:
    """Return the 95 % confidence sequence of the mean after the last value.

    With a probability of at least 95 %, the intervals after every number of values contain the
    mean. The interval is the intersection of those so far; each end inverts a one-sided test at
    2.5 %. If these reject every mean, it has all means that are possible.
    """
    coherent = is_coherent(values, population)
    low, high = interval_ends(values, population, END_LEVEL if coherent else inf)
    return min(low, high), max(low, high)  # they are equal but for rounding at the last image


def is_coherent(values: Floats, population: Population | None = None) -> bool:
    """Return whether some mean is rejected from neither side, as the true mean is in 95 %."""
    low, high = interval_ends(values, population)
    return low <= high + 2 * END_ERROR


def interval_ends(
    values: Floats,
    population: Population | None = None,
    level: float = END_LEVEL,
    earlier: tuple[float, float] = (-1.0, 1.0),
    since: int = 0,
) -> tuple[float, float]:
    """Return the largest mean rejected as too small, and the smallest one rejected as too large.

    A mean is rejected if its log capital ever was at least `level`; if that is infinite, only what
    the population cannot have. `earlier` are the ends after `since` values.
    """
    low, high = earlier
    # Without a population, blocks of values whose factors fit a processor's cache.
    size = len(values) if population is not None else max(100, len(values) // 64)
    for stop in [*range(since + size, len(values), size or 1), len(values)]:
        low = _lower_end(values[:stop], population, level, low, since)
        high = -_lower_end(-values[:stop], population, level, -high, since)
        since = stop
    return low, high


def _lower_end(
    values: Floats, population: Population | None, level: float, low: float, since: int
) -> float:
    """Return the lower end after all values, at least `low`, the end after `since` of them."""
    high = 1.0
    if population is not None and len(values):  # only possible means
        total, rest = values.sum(), population.rest[len(values) - 1]
        low = max(low, (total - rest) / population.size)
        high = (total + rest) / population.size

    def excess(mean: float) -> float:
        return float(log_capital(values, mean, population, since).max(initial=0.0)) - level

    if level == inf or excess(low) < 0:
        return low
    if low >= high or excess(high) >= 0:
        return 1.0  # every possible mean is rejected
    return float(optimize.brentq(excess, low, high, xtol=END_ERROR))


def accuracy_anytime(right: Floats) -> tuple[float, float]:
    """Return the `anytime_interval` of the mean of values in [0, 1], such as an accuracy."""
    low, high = anytime_interval(2 * right - 1)
    return (low + 1) / 2, (high + 1) / 2


def count_interval(count: int, n: int, population: int) -> tuple[int, int]:
    """Return a 95 % confidence sequence of the number of images of a population with a property.

    `count` of `n` images drawn without replacement have it. The capital against a true count K is
    the prior-posterior ratio of Waudby-Smith & Ramdas, "Confidence sequences for sampling without
    replacement", NeurIPS 2020: prior(K) / posterior(K), which is a test martingale for any prior.
    """

    def choices(total: Ints | int, chosen: Ints | int) -> Floats:
        """Return the logarithms of binomial coefficients."""
        return np.asarray(-np.log1p(total) - special.betaln(total - chosen + 1, chosen + 1))

    a, b = SHARE_PRIOR
    totals = np.arange(count, population - (n - count) + 1)  # all possible true counts
    # Log probabilities of `count`, for each true count and if that is drawn from the prior.
    known = choices(totals, count) + choices(population - totals, n - count)
    known -= choices(population, n)
    drawn = choices(n, count) + special.betaln(count + a, n - count + b) - special.betaln(a, b)
    plausible = totals[drawn - known < log(1 / ALPHA)]
    return int(plausible[0]), int(plausible[-1])


def first_narrow(
    values: Floats, width: float, population: Population | None = None, level: float = END_LEVEL
) -> int:
    """Return after how many values `interval_ends` are at most `width` apart, or n + 1 if never."""

    def is_narrow(n: int) -> bool:  # once narrow, always narrow
        low, high = interval_ends(values[:n], population, level)
        return high - low <= width

    never = len(values) + 1
    return bisect_left(range(never), True, key=is_narrow) if is_narrow(never) else never


def interval_course(
    values: Floats, points: int = 60, population: Population | None = None
) -> list[tuple[int, float, float]]:
    """Return (n, low, high) at up to `points` evenly spaced n, until every mean is rejected."""
    counts = np.unique(np.linspace(1, len(values), min(points, len(values))).round().astype(int))
    course: list[tuple[int, float, float]] = []
    n, low, high = 0, -1.0, 1.0
    for count in counts.tolist():
        low, high = interval_ends(values[:count], population, END_LEVEL, (low, high), n)
        if low > high + 2 * END_ERROR:
            break
        n = count
        course.append((n, min(low, high), max(low, high)))
    return course


Stop = Literal["best", "ranked"]


class Standings(NamedTuple):
    """State of a comparison of many methods after the images so far."""

    out: dict[str, int]  # eliminated method → number of its images when it was eliminated
    open: tuple[str, ...]  # methods that need more images, best first; empty once decided
    leader: str  # most accurate of the methods with the most images
    unresolved: tuple[tuple[str, str], ...] = ()  # pairs neither ordered nor shown equal
    p: Mapping[str, float] = {}  # method → family-wise p of "it is a best one"

    @property
    def decided(self) -> bool:
        """Whether the study's question is answered."""
        return not self.open


def standings(
    results: Mapping[str, Floats], stop: Stop, margin: float | None = None, strict: bool = False
) -> Standings:
    """Return which methods are eliminated, and which need more images.

    `results` are float64 [n] in [0, 1] by method, in the common random order; a method eliminated
    earlier has fewer images. `best` continues until one method remains or, with a margin, until the
    leader is shown to be within it of all that remain; `ranked` continues until every pair is
    ordered or shown to be equal. Methods whose difference is below `margin` count as equal. If
    `strict`, `best` eliminates a method only if it is worse than the best, family-wise.
    """
    order = sorted(results, key=lambda m: (-len(results[m]), -float(results[m].mean())))
    if stop == "best":
        return _best(results, order, margin, strict)
    return _ranked(results, order, margin)


def _best(
    results: Mapping[str, Floats], order: Sequence[str], margin: float | None, strict: bool
) -> Standings:
    """Return the sequential model confidence set (Arnold, Gavrilopoulos, Schulz & Ziegel, 2024).

    The null hypothesis that a method is a best one is tested by the mean of the capitals of all
    other methods against it, which is a test martingale too. The probability that a given best
    method is ever eliminated is at most α, and so is that of a leader which is not a best one. With
    a margin, elimination and equality are tested at α / 2 each.
    """
    alpha = ALPHA if margin is None else ALPHA / 2
    n_images = len(results[order[0]])
    paths = []
    for method, own in results.items():
        capitals = [_capital(other, own) for name, other in results.items() if name != method]
        mean = _log_sum(np.stack(capitals, axis=-1)) - log(len(capitals))
        paths.append(np.pad(mean, (0, n_images - len(own)), mode="edge"))
    capital = np.stack(paths, axis=-1)  # logarithms, [images, methods]
    family = closed_capital(capital)
    rejected = (family if strict else capital) >= log(1 / alpha)
    of_methods = zip(results, rejected.T, strict=True)
    out = {method: int(images.argmax()) + 1 for method, images in of_methods if images.any()}
    remaining = tuple(m for m in order if m not in out and len(results[m]) == n_images)
    leader = remaining[0] if remaining else order[0]
    if margin is not None and len(remaining) > 1:
        p = max(anytime_p(results[leader] - results[other], -margin) for other in remaining[1:])
        if p <= alpha / (len(results) - 1):  # Bonferroni: the leader was chosen on these images
            remaining = (leader,)
    p_family = np.exp(-family.max(axis=0, initial=0.0)).tolist()
    still_open = remaining if len(remaining) > 1 else ()
    return Standings(out, still_open, leader, p=dict(zip(results, p_family, strict=True)))


def closed_capital(capital: Floats) -> Floats:
    """Return the log capitals of a closed test of many hypotheses, float64 [n, methods].

    `capital` has the logarithm of each method's capital after each image. A set of hypotheses is
    tested by the mean of its capitals, and a hypothesis is rejected if all sets that contain it are
    (Vovk & Wang, "E-values: calibration, combination and applications", Annals of Statistics 49,
    2021). The set with the smallest mean has, besides the hypothesis, those of smallest capital.
    The probability that any true hypothesis ever reaches 1 / α is at most α.
    """
    capital = np.minimum(capital, 300.0)  # no overflow
    sums = np.logaddexp.accumulate(np.sort(capital, axis=1), axis=1)  # of the smallest capitals
    closed = capital.copy()
    for others in range(1, capital.shape[1] + 1):
        mean = np.logaddexp(capital, sums[:, others - 1 : others]) - log(others + 1)
        closed = np.minimum(closed, mean)
    return closed


def _capital(other: Floats, own: Floats) -> Floats:
    """Return the log capital against "`own` is no worse than `other`" after each image of `own`."""
    shared = min(len(other), len(own))
    path = log_capital(other[:shared] - own[:shared], 0.0)
    return np.pad(path, (0, len(own) - shared), mode="edge")  # `other` was eliminated earlier


def _ranked(results: Mapping[str, Floats], order: Sequence[str], margin: float | None) -> Standings:
    """Test every pair, with p = 1 / largest capital so far, corrected by Holm's method (1979).

    With a margin, differences and equalities are tested at α / 2 each.
    """
    alpha = ALPHA if margin is None else ALPHA / 2
    pairs = list(combinations(order, 2))
    p_differ, p_equal = np.ones((2, len(pairs)))
    for place, (a, b) in enumerate(pairs):
        shared = min(len(results[a]), len(results[b]))
        values = results[a][:shared] - results[b][:shared]
        p_differ[place] = two_sided_p(values, 0.0)
        if margin is not None:
            p_equal[place] = outside_p(values, margin)
    resolved = np.minimum(holm(p_differ), holm(p_equal)) <= alpha
    unresolved = tuple(pairs[place] for place in np.flatnonzero(~resolved))
    still_open = {method for pair in unresolved for method in pair}
    return Standings({}, tuple(m for m in order if m in still_open), order[0], unresolved)
