"""Tests and intervals that hold at every number of images: whoever looks at each may stop at any.

Values of images in random order are bets against a hypothesis about their mean. Capital that starts
at 1 and grows to 1/α rejects it: if the hypothesis holds, the probability that the capital *ever*
reaches 1/α is at most α (Ville 1939). Waudby-Smith & Ramdas, "Estimating means of bounded random
variables by betting" (JRSS B 86, 2024), of which this is the mixture over constant bets: it does
not depend on the order of the values where images are drawn with replacement. On differences of two
runs and the hypothesis 0 it is a bet on McNemar's discordant pairs. Of many methods, those that are
shown not to be the best leave, and are scored no further.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import exp, inf, log
from typing import Literal, NamedTuple

import numpy as np

from bench.contracts.strategy import Floats
from bench.stats.many import holm
from bench.stats.paired import ALPHA

MAX_STEPS = 45  # of a bisection: its ends are known to 1e-13
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
BETS = (_NODES + 1) / 2  # share of the capital that is staked, a uniform prior in 64 points
LOG_PRIOR = np.log(_WEIGHTS / 2)


def log_capital(values: Floats, mean: float, population: int | None = None) -> Floats:
    """Return the logarithm of the capital after each value, float64 [n].

    The bets are against the hypothesis that the mean is at most `mean`; against "at least", both
    are given with the other sign.

    Args:
        values: float64 [n] in [-1, 1], of images in random order.
        mean: hypothesis about the mean of all images like these.
        population: number of images from which these are drawn without replacement; the hypothesis
            is then about their mean. None: it is about all images like these.
    """
    if not len(values):
        return np.zeros(0)
    expected = _expected(values, mean, population)
    capital = _log_sum(np.cumsum(_log_growth(values, expected), axis=0) + LOG_PRIOR)
    capital[np.minimum.accumulate(expected) <= -1] = inf  # no images left have so small a mean
    if population == len(values) and values.sum() > population * mean + 1e-9:
        capital[-1] = inf
    return capital


def _expected(values: Floats, mean: float, population: int | None) -> Floats:
    """Return the mean of the images that are left before each value, if the hypothesis holds."""
    if population is None:
        return np.full(len(values), mean)
    before = np.cumsum(values) - values
    left = population - np.arange(len(values))
    return np.asarray((population * mean - before) / left)  # section 5 of the paper


def _log_growth(values: Floats, expected: Floats) -> Floats:
    """Return the logarithm of each bet's growth by each value, float64 [n, bets]."""
    expected = np.clip(expected, -1 + 1e-12, 1.0)
    returns = (values - expected) / (1 + expected)
    return np.log1p(np.multiply.outer(returns, BETS))


def _log_sum(logs: Floats) -> Floats:
    """Return the logarithm of the sum along the last axis of numbers given as logarithms."""
    largest = logs.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(logs - largest[..., None]).sum(axis=-1)))


def simulated_stops(difference: float, discordance: float, most: int, studies: int = 400) -> Floats:
    """Return after how many images simulated comparisons are decided, float64 [studies].

    Both runs answer the same images. The test is made at 400 numbers of images, up to `most`;
    infinity: it decides at none of them.
    """
    rng, step = np.random.default_rng(0), max(1, most // 400)
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    counts = rng.multinomial(step, shares, size=(studies, most // step)).cumsum(axis=1)
    wins, losses = counts[..., 0, None], counts[..., 1, None]
    decided = np.zeros(wins.shape[:2], dtype=bool)
    for won, lost in ((wins, losses), (losses, wins)):
        paths = won * np.log1p(BETS) + lost * np.log1p(-BETS) + LOG_PRIOR
        decided |= _log_sum(paths) >= log(2 / ALPHA)
    stops: Floats = np.where(decided.any(axis=1), (decided.argmax(axis=1) + 1.0) * step, inf)
    return stops


def anytime_p(values: Floats, mean: float, population: int | None = None) -> float:
    """Return the p of "the mean is at most `mean`", valid at any number of values.

    One over the capital after the last value, and at most 1.
    """
    capital = log_capital(values, mean, population)
    return exp(-max(float(capital[-1]), 0.0)) if len(values) else 1.0


def two_sided_p(values: Floats, population: int | None = None) -> float:
    """Return the p of "the mean is 0", valid at any number of values."""
    ends = anytime_p(values, 0.0, population), anytime_p(-values, 0.0, population)
    return min(1.0, 2 * min(ends))


def anytime_interval(values: Floats, population: int | None = None) -> tuple[float, float]:
    """Return the interval that holds the mean at every number of values with 95 % together.

    Each end is a one-sided test at 2.5 %: an interval without 0 and a `two_sided_p` below 5 % are
    the same.
    """
    *_, (low, _) = _bisection(values, population)
    *_, (high, _) = _bisection(-values, population)
    return low, -high


def _bisection(values: Floats, population: int | None) -> Iterator[tuple[float, float]]:
    """Yield bounds of the largest mean that is rejected after the last value, ever closer.

    The lower one of the last bounds is that mean.
    """
    low, high, needed, n = -1.0, 1.0, log(2 / ALPHA), len(values)
    yield low, high
    total, counts = values.sum(), np.ones(n, dtype=np.int64)
    if population is None:  # the order does not matter
        values, counts = np.unique(values, return_counts=True)
    for _ in range(MAX_STEPS if n else 0):
        middle = (low + high) / 2
        expected = _expected(values, middle, population)
        rejected = expected.min() <= -1 or (population == n and total > n * middle + 1e-9)
        if not rejected:
            growth = (counts[:, None] * _log_growth(values, expected)).sum(axis=0)
            rejected = _log_sum(growth + LOG_PRIOR) >= needed
        low, high = (middle, high) if rejected else (low, middle)
        yield low, high


def accuracy_anytime(right: Floats) -> tuple[float, float]:
    """Return the `anytime_interval` of an accuracy from float64 [n] results in [0, 1]."""
    low, high = anytime_interval(2 * right - 1)
    return (low + 1) / 2, (high + 1) / 2


def is_narrow(values: Floats, width: float, population: int | None = None) -> bool:
    """Return whether `anytime_interval` is at most `width` wide, from as few steps as show it."""
    ends = (_bisection(side, population) for side in (values, -values))
    for (low, low_most), (high, high_most) in zip(*ends, strict=True):
        if -high - low <= width:  # the ends only come closer
            return True
        if -high_most - low_most > width:
            return False
    return False


def first_narrow(
    values: Floats, width: float, population: int | None = None, since: int = 1
) -> int | None:
    """Return after how many values `anytime_interval` is at most `width` wide; None: not yet.

    The interval is checked after every value at first, later after every 2 % more, and not before
    the value `since`.
    """
    n = 1
    while n <= len(values):
        # An interval that holds at every n is never narrower than one for this n alone.
        may_be_narrow = population is not None or 2 * 1.96 * values[:n].std() <= width * n**0.5
        if n >= since and may_be_narrow and is_narrow(values[:n], width, population):
            return n
        n += max(1, n // 50)
    return population if population == len(values) else None  # all is known of a whole split


def interval_course(
    values: Floats, looks: int = 60, population: int | None = None
) -> list[tuple[int, float, float]]:
    """Return n and both ends of `anytime_interval` at up to `looks` numbers of values."""
    ends = np.unique(np.linspace(1, len(values), min(looks, len(values))).round().astype(int))
    return [(int(n), *anytime_interval(values[:n], population)) for n in ends]


Stop = Literal["best", "ranked"]


class Standings(NamedTuple):
    """What the images so far show."""

    out: dict[str, int]  # methods that are not the best → number of images that shows it
    open: tuple[str, ...]  # methods of which more images are needed, best first
    leader: str  # method with the highest accuracy of those with the most images
    unresolved: tuple[tuple[str, str], ...] = ()  # pairs whose order is not shown

    @property
    def decided(self) -> bool:
        """Whether the study's question is answered."""
        return not self.open


def standings(results: Mapping[str, Floats], stop: Stop, margin: float | None = None) -> Standings:
    """Return what the images so far show; those of a method that left are fewer.

    Args:
        results: method → float64 [n] in [0, 1], its results per image in the common random order.
        stop: `best`: until one method is left, or with a margin until one is within it of all that
            are left; `ranked`: until the order of every pair is shown, or its equality.
        margin: difference of accuracies that counts as none; None: none does.
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

    "This method is the best" is rejected by the mean of the capitals of all others against it,
    which is a fair bet too. A best method ever leaves with a probability of at most α; with a
    margin, half of α is for that, the other half for the equality of those that are left.
    """
    alpha = ALPHA if margin is None else ALPHA / 2
    out = {}
    for method, own in results.items():
        paths = np.stack([_capital(results[o], own) for o in results if o != method], axis=-1)
        mean = _log_sum(paths) - log(len(results) - 1)
        if (shown := np.flatnonzero(mean >= log(1 / alpha))).size:
            out[method] = int(shown[0]) + 1
    left = tuple(method for method in order if method not in out and len(results[method]) == most)
    leader = left[0] if left else order[0]
    if margin is not None and len(left) > 1:
        needed = log(2 * (len(results) - 1) / ALPHA)
        close = [
            log_capital(results[leader] - results[other], -margin).max() >= needed
            for other in left[1:]
        ]
        left = left if not all(close) else (leader,)
    return Standings(out, left if len(left) > 1 else (), leader)


def _capital(other: Floats, own: Floats) -> Floats:
    """Return the capital against "own is no worse" after each of own's images.

    It stays where it is after the other method has left.
    """
    shared = min(len(other), len(own))
    path = log_capital(other[:shared] - own[:shared], 0.0)
    return np.concatenate([path, np.full(len(own) - shared, path[-1])])


def _ranked(results: Mapping[str, Floats], order: Sequence[str], margin: float | None) -> Standings:
    """Test every pair with Holm's correction (1979) of p = 1 / largest capital.

    With a margin, half of α is for differences and half for equalities.
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
    shown = np.minimum(holm(differ), holm(equal)) <= alpha
    unresolved = tuple(pairs[place] for place in np.flatnonzero(~shown))
    left = {method for pair in unresolved for method in pair}
    return Standings({}, tuple(m for m in order if m in left), order[0], unresolved)


def _smallest_p(values: Floats, mean: float) -> float:
    """Return the smallest `anytime_p` so far."""
    return exp(-max(float(log_capital(values, mean).max()), 0.0))
