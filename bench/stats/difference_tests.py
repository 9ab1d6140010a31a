"""Tests of a difference of two methods, each with its interval.

Throughout, `a` and `b` are float64 [seeds, templates, n], values of the runs of both methods on the
same images; differences below `margin` count as equal, and None tests no equality; `clusters`,
int64 [n], numbers the images that belong together, and None takes each by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats, Ints
from bench.stats.class_metrics import exchange_p, random_signs
from bench.stats.crossed import Over, are_answers, image_error, seed_error, unit_sums
from bench.stats.paired import ALPHA, Z95, equality_p, paired_test, with_zero

ZERO_DIFFERENCE = 1e-12  # smaller mean differences are 0


@dataclass(frozen=True)
class DifferenceTest:
    """The result of a test of a difference."""

    test: str  # name of the test
    p: float  # two-sided, of a difference of 0
    interval: tuple[float, float]  # 95 %
    p_equal: float | None = None  # of a difference beyond the margin; None: no margin was set


Method = Literal["images", "influence", "bootstrap"]


@dataclass(frozen=True)
class Answers:
    """Decisions of the runs of a method, or of a group of methods, on the same images."""

    name: str
    members: tuple[Ints, ...]  # predicted classes, [seeds, templates, n]; of a group several
    measured: tuple[Floats, ...]  # image values of the tested metric, whose mean it is; likewise
    method: Method = "images"  # whether these are the images' own values, or influence values

    @property
    def runs(self) -> int:
        """Number of runs."""
        return sum(member.shape[0] * member.shape[1] for member in self.members)

    @property
    def values(self) -> Floats:
        """Image values, whose mean is the metric, [seeds, templates, n]; of a group, their mean."""
        if len(self.measured) == 1:
            return self.measured[0]
        return np.asarray(self.of_members.mean(axis=0, keepdims=True))

    @property
    def of_members(self) -> Floats:
        """Image values of each member, means over its runs, [members, 1, n]."""
        return np.stack([values.mean(axis=(0, 1))[None] for values in self.measured])


def difference_test(
    metric: MetricSpec,
    labels: Ints,
    a: Answers,
    b: Answers,
    margin: float | None = None,
    clusters: Ints | None = None,
    over: Over = "images",
) -> DifferenceTest:
    """Return the tests of a difference in a metric, as its declaration and its values ask.

    For averages of class ratios, predictions are exchanged. The interval is of the metric's linear
    part, with 0 in it where the test does not reject; where the test rejects narrowly, the interval
    may still reach 0. Means of influence values have z tests by their paired error.

    `labels` are int64 [n], the true classes.
    """
    from scipy.special import ndtr

    if over == "seeds":
        return compare_over_seeds(a.values, b.values, margin, clusters)
    change = b.values.mean(axis=(0, 1)) - a.values.mean(axis=(0, 1))
    if metric.ratio is not None and not metric.mean_over_images:
        p = exchange_p(metric, labels, a.members, b.members, clusters)
        tested = _with_z_interval("permutation", p, change, margin, clusters)
        return replace(tested, interval=with_zero(tested.interval, p))
    if "influence" in (a.method, b.method):
        mean, error = float(change.mean()), image_error(change[None, None], clusters)
        p = 2 * float(ndtr(-abs(mean) / error)) if error else float(mean == 0)
        tested = _with_z_interval("influence", p, change, margin, clusters)
        return replace(tested, interval=(mean - Z95 * error, mean + Z95 * error))
    return compare_over_images(a.values, b.values, margin, clusters)


def compare_over_images(
    a: Floats, b: Floats, margin: float | None = None, clusters: Ints | None = None
) -> DifferenceTest:
    """Return the tests of a difference of accuracies over other images, for these runs.

    McNemar's exact test of two runs with Tango's interval, which is widened to 0 where the exact
    test does not reject; of several runs, sign flips of each image's mean difference. So p is at
    most 0.05 exactly where the interval excludes 0.

    Equality is tested by two one-sided tests (Schuirmann 1987): score tests of the paired
    difference of two runs, else z tests with the standard error over images.

    Methods may have different numbers of seeds and templates.
    """
    if clusters is None and are_answers(a) and are_answers(b):
        pair = paired_test(a[0, 0] > 0.5, b[0, 0] > 0.5)
        equal = None if margin is None else equality_p(pair.wins, pair.losses, pair.n, margin)
        return DifferenceTest("mcnemar", pair.mcnemar_p, pair.difference_ci95, equal)
    change = b.mean(axis=(0, 1)) - a.mean(axis=(0, 1))
    p, interval = sign_flips(change, clusters)
    tested = _with_z_interval("permutation", p, change, margin, clusters)
    if p > ALPHA:
        interval = min(interval[0], tested.interval[0]), max(interval[1], tested.interval[1])
    return replace(tested, interval=interval)


def compare_over_seeds(
    a: Floats, b: Floats, margin: float | None = None, clusters: Ints | None = None
) -> DifferenceTest:
    """Return the tests of a difference over other images and other seeds.

    Test, interval and the two one-sided tests of equality are of the paired differences, with the
    error of `seed_error`. So p is at most 0.05 exactly where the interval excludes 0.

    Both methods have the same seeds in the same order.
    """
    change = b.mean(axis=1, keepdims=True) - a.mean(axis=1, keepdims=True)
    mean, error = float(change.mean()), seed_error(change, clusters)
    least = _image_error(change.mean(axis=(0, 1)), clusters) ** 2 - error.of_seeds
    error = replace(error, of_images=max(error.of_images, least))
    p, reach = min(1.0, 2 * error.tail(abs(mean))), error.reach(ALPHA / 2)
    return DifferenceTest(
        "seeds", p, (mean - reach, mean + reach), _equality(mean, margin, error.tail)
    )


def sign_flips(values: Floats, clusters: Ints | None = None) -> tuple[float, tuple[float, float]]:
    """Return the two-sided p of a permutation test that the mean is 0, and the interval it gives.

    Under the null each image's two values may be exchanged, so that its difference may have either
    sign. The 95 % interval has the means that the same flips, of the differences less that mean, do
    not reject at 5 %: p is at most 0.05 exactly where 0 lies outside. Images with the same
    difference are counted and not drawn one by one.

    A flip's sum is A - C m for a mean of m, where A is the sum of the flipped differences and C
    that of the signs. It reaches the observed one, D - n m, for all m between (D - A) / (n - C) and
    (D + A) / (n + C): the ends of the interval are quantiles of these over the flips.
    """
    sums, sizes = unit_sums(values[None], clusters)
    rows, counts = np.unique(np.column_stack([sums[0], sizes]), axis=0, return_counts=True)
    total, n = float(values.sum()), len(values)
    ends = []
    for signs in random_signs(counts, len(rows)):
        flipped, signed = (signs @ rows).T
        with np.errstate(divide="ignore", invalid="ignore"):  # all signs alike reach any mean
            low = np.where(signed >= n, -np.inf, (total - flipped) / (n - signed))
            high = np.where(signed <= -n, -np.inf, (total + flipped) / (n + signed))
        both = np.sort([low, high], axis=0)
        both[1][~np.isfinite(both[0])] = np.inf
        ends.append(both)
    low, high = np.concatenate(ends, axis=1)
    reached = int(((low <= ZERO_DIFFERENCE) & (high >= -ZERO_DIFFERENCE)).sum())
    place = int(ALPHA * (1 + len(low))) - 1
    quantiles = np.sort(low)[place], np.sort(high)[-1 - place]
    lowest, highest = (0.0 if abs(end) <= ZERO_DIFFERENCE else float(end) for end in quantiles)
    return (1 + reached) / (1 + len(low)), (lowest, highest)


def _equality(mean: float, margin: float | None, tail: Callable[[float], float]) -> float | None:
    """Return the p of two one-sided tests that the difference is not within the margin."""
    return None if margin is None else max(tail(margin + mean), tail(margin - mean))


def _with_z_interval(
    test: str, p: float, change: Floats, margin: float | None, clusters: Ints | None
) -> DifferenceTest:
    """Return a test with z's interval and z tests of equality of differences, float64 [n]."""
    from scipy.special import ndtr

    mean, error = float(change.mean()), _image_error(change, clusters)
    equal = _equality(mean, margin, lambda distance: float(ndtr(-distance / error)))
    return DifferenceTest(test, p, (mean - Z95 * error, mean + Z95 * error), equal)


def _image_error(change: Floats, clusters: Ints | None) -> float:
    """Return the standard error of a mean difference over images, float64 [n].

    At least that of the data with half an image added to each case of a pair (Agresti & Min,
    Statistics in Medicine 24, 2005), since runs that agree on n images may differ on others.
    """
    n = len(change) + 2
    variance = (float((change**2).sum()) + 1) / n - (float(change.sum()) / n) ** 2
    return max(image_error(change[None, None], clusters), float(np.sqrt(variance / n)))
