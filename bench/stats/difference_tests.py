"""Tests of a difference of two methods, each with the interval that belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.stats.class_metrics import AT_ONCE, exchange_p, image_values
from bench.stats.crossed import are_answers, image_error, seed_error, unit_sums
from bench.stats.paired import ALPHA, Z95, difference_interval, mcnemar, score_statistic, with_zero

FLIPS = 20_000  # of one test
ZERO_DIFFERENCE = 1e-12  # a mean difference closer to 0 is 0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DifferenceTest:
    """A test of a difference, and the interval that belongs to it.

    Attributes:
        test: what it is called.
        p: two-sided, of a difference of 0.
        interval: 95 %.
        p_equal: of a difference that is not within the margin; None: no margin was set.
    """

    test: str
    p: float
    interval: tuple[float, float]
    p_equal: float | None = None


def compare_over_images(
    a: Floats, b: Floats, margin: float | None = None, clusters: Ints | None = None
) -> DifferenceTest:
    """Return the tests of a difference of accuracies over other images, for the runs there are.

    McNemar's exact test of two runs with Tango's interval, which is widened to 0 where the exact
    test does not reject; of several runs, sign flips of each image's mean difference. So p is at
    most 0.05 exactly where the interval excludes 0.

    Equality is tested by two one-sided tests (Schuirmann 1987): score tests of the paired
    difference of two runs, else z tests with the standard error over images.

    Args:
        a: [seeds, templates, n], whether A's runs are right.
        b: likewise, of the same images; the numbers of seeds and templates may be others.
        margin: differences below it count as nothing; None: equality is not tested.
        clusters: int64 [n], images that belong together; None: each by itself.
    """
    if clusters is None and are_answers(a) and are_answers(b):
        wins, losses, n = *_won(a, b), a.shape[2]
        p, interval = float(mcnemar(wins, losses)), difference_interval(wins, losses, n)
        equal = None if margin is None else _score_equality(wins, losses, n, margin)
        return DifferenceTest("mcnemar", p, with_zero(interval, p), equal)
    each = b.mean(axis=(0, 1)) - a.mean(axis=(0, 1))
    mean, error = float(each.mean()), _image_error(each, clusters)
    p, interval = sign_flips(each, clusters)
    if p > ALPHA:
        interval = min(interval[0], mean - Z95 * error), max(interval[1], mean + Z95 * error)
    return DifferenceTest("permutation", p, interval, _equality(mean, margin, _normal_tail(error)))


def compare_over_seeds(
    a: Floats, b: Floats, margin: float | None = None, clusters: Ints | None = None
) -> DifferenceTest:
    """Return the tests of a difference over other images and other seeds.

    Test, interval and the two one-sided tests of equality are of the paired differences, with the
    error of `seed_error`. So p is at most 0.05 exactly where the interval excludes 0.

    Args:
        a: [seeds, templates, n], the values of A's runs.
        b: likewise, of the same seeds in the same order, and the same images.
        margin: differences below it count as nothing; None: equality is not tested.
        clusters: int64 [n], images that belong together; None: each by itself.
    """
    each = b.mean(axis=1, keepdims=True) - a.mean(axis=1, keepdims=True)
    mean, error = float(each.mean()), seed_error(each, clusters)
    least = _image_error(each.mean(axis=(0, 1)), clusters) ** 2 - error.of_seeds
    error = replace(error, of_images=max(error.of_images, least))
    p, reach = min(1.0, 2 * error.tail(abs(mean))), error.reach(ALPHA / 2)
    return DifferenceTest(
        "seeds", p, (mean - reach, mean + reach), _equality(mean, margin, error.tail)
    )


def compare_by_exchange(
    metric: str,
    labels: Ints,
    a: Sequence[Ints],
    b: Sequence[Ints],
    margin: float | None = None,
    clusters: Ints | None = None,
) -> DifferenceTest:
    """Return the tests of a metric that is no mean over images: predictions are exchanged.

    The interval is of the metric's linear part, with 0 in it where the test does not reject. Where
    the test rejects narrowly, the interval may still reach 0.

    Args:
        metric: which one.
        labels: int64 [n], the true classes.
        a: int64 [seeds, templates, n] of each member of A, the predicted classes.
        b: likewise of B.
        margin: differences below it count as nothing; None: equality is not tested.
        clusters: int64 [n], images that belong together; None: each by itself.
    """
    of_a, of_b = (
        np.mean([image_values(metric, labels, one).mean(axis=(0, 1)) for one in side], axis=0)
        for side in (a, b)
    )
    each, p = of_b - of_a, exchange_p(metric, labels, a, b, clusters)
    mean, error = float(each.mean()), _image_error(each, clusters)
    interval = with_zero((mean - Z95 * error, mean + Z95 * error), p)
    return DifferenceTest("permutation", p, interval, _equality(mean, margin, _normal_tail(error)))


def sign_flips(
    values: Floats, clusters: Ints | None = None, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return the two-sided p of a permutation test that the mean is 0, and the interval it gives.

    Under the null each image's two values may be exchanged, so that its difference may have either
    sign. The 95 % interval has the means that the same flips, of the differences less that mean, do
    not reject at 5 %: p is at most 0.05 exactly where 0 lies outside. Images with the same
    difference are counted and not drawn one by one.

    A flip's sum is A - C m for a mean of m, where A is the sum of the flipped differences and C
    that of the signs. It reaches the observed one, D - n m, for all m between (D - A) / (n - C) and
    (D + A) / (n + C): the ends of the interval are quantiles of these over the flips.

    Args:
        values: [n], the difference of each image.
        clusters: int64 [n], images that are flipped together; None: each by itself.
        seed: of the flips.
    """
    sums, sizes = unit_sums(values[None], clusters)
    rows, counts = np.unique(np.column_stack([sums[0], sizes]), axis=0, return_counts=True)
    total, n = float(values.sum()), len(values)
    rng, ends, left = np.random.default_rng(seed), [], FLIPS
    while left:
        size = min(left, max(1, AT_ONCE // len(rows)))
        signs = 2 * rng.binomial(counts, 0.5, size=(size, len(counts))) - counts
        flipped, signed = (signs @ rows).T
        with np.errstate(divide="ignore", invalid="ignore"):  # all signs alike reach any mean
            low = np.where(signed >= n, -np.inf, (total - flipped) / (n - signed))
            high = np.where(signed <= -n, -np.inf, (total + flipped) / (n + signed))
        both = np.sort([low, high], axis=0)
        both[1][~np.isfinite(both[0])] = np.inf
        ends.append(both)
        left -= size
    low, high = np.concatenate(ends, axis=1)
    reached = int(((low <= ZERO_DIFFERENCE) & (high >= -ZERO_DIFFERENCE)).sum())
    place = int(ALPHA * (1 + FLIPS)) - 1
    found = np.sort(low)[place], np.sort(high)[-1 - place]
    lowest, highest = (0.0 if abs(end) <= ZERO_DIFFERENCE else float(end) for end in found)
    return (1 + reached) / (1 + FLIPS), (lowest, highest)


def _score_equality(wins: int, losses: int, n: int, margin: float) -> float:
    """Return the p of two one-sided score tests that the difference is not within the margin."""
    from scipy.special import ndtr

    low, high = (score_statistic(wins, losses, n, end) for end in (-margin, margin))
    return float(max(ndtr(-low), ndtr(high)))


def _equality(mean: float, margin: float | None, tail: Callable[[float], float]) -> float | None:
    """Return the p of two one-sided tests that the difference is not within the margin."""
    return None if margin is None else max(tail(margin + mean), tail(margin - mean))


def _normal_tail(error: float) -> Callable[[float], float]:
    """Return what gives the one-sided p of a distance with this standard error."""
    from scipy.special import ndtr

    return lambda distance: float(ndtr(-distance / error))


def _won(a: Floats, b: Floats) -> tuple[int, int]:
    """Return how many images B alone has right, and how many A alone."""
    right_a, right_b = a[0, 0] > 0.5, b[0, 0] > 0.5
    return int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())


def _image_error(each: Floats, clusters: Ints | None) -> float:
    """Return the standard error of a mean difference over images, float64 [n].

    It is at least what so many images can have, for no difference seen is not none: Agresti & Min
    (Statistics in Medicine 24, 2005) add half an image to each case of a pair.
    """
    n = len(each) + 2
    variance = (float((each**2).sum()) + 1) / n - (float(each.sum()) / n) ** 2
    return max(image_error(each[None, None], clusters), float(np.sqrt(variance / n)))
