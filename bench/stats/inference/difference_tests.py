"""Tests of the difference of two methods, or of many, on the same images, with intervals and ranks.

Throughout, `a` and `b` are float64 [seeds, templates, n], the image values of the runs of both
methods. `margin` is the difference below which methods count as equal; None to test no equality.
`clusters` are int64 [n], the cluster of each image; None if images are independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Literal

import numpy as np

from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.stages import counted
from bench.stats.inference.class_metrics import (
    class_reach,
    exchange_p,
    interval_caveat,
    largest_influence,
    random_signs,
    small_sample_bias,
)
from bench.stats.inference.paired import (
    ALPHA,
    Z95,
    Difference,
    Paired,
    equality_p,
    normal_cdf,
    paired_test,
    tested_difference,
    with_zero,
)
from bench.stats.inference.score import mean_score, unit_sums
from bench.stats.inference.shares import Estimate
from bench.stats.inference.variance import (
    Over,
    Spread,
    are_answers,
    image_error,
    seed_error,
    spread,
)
from bench.store.formats.decisions import Decisions
from bench.store.formats.fields import Document, Positive, Share

ZERO_DIFFERENCE = 1e-12  # smaller mean differences count as 0
# Influence values are a linear approximation, which is poor if a class has few images.
# The same holds for a weighted mean over few images.
MIN_RELIABLE = 10  # images of each class; with fewer, tests of influence values are approximate
MIN_TESTED = 5  # images of each class; with fewer, influence values give no p

Basis = Literal["images", "influence", "bootstrap"]
"""What intervals and tests follow from: the images' own values, influence values, a bootstrap."""


@dataclass(frozen=True)
class Answers:
    """Predictions and image values of the runs of a method on n images."""

    name: str
    predictions: Ints  # predicted classes, int64 [seeds, templates, n]
    values: Floats  # image values, float64 [seeds, templates, n]; their mean is the metric
    basis: Basis = "images"  # what the values are
    images: int | None = None  # number of images with a weight above 0 in the metric; None: all

    @property
    def runs(self) -> int:
        """Number of runs."""
        return int(np.prod(self.values.shape[:2]))


def difference_test(
    metric: MetricSpec,
    labels: Ints,
    a: Answers,
    b: Answers,
    margin: float | None = None,
    clusters: Ints | None = None,
    over: Over = "images",
) -> Difference:
    """Test the difference of two methods in a metric, B minus A.

    The test follows from the metric and its values. For
    averages of class ratios, it is a permutation test that exchanges predictions. Their interval is
    based on the linear approximation of the metric, contains that of the variance within classes,
    and is widened to include 0 if the test does not reject, but may also include 0 if it rejects
    narrowly. For influence values, it is a z test with their paired standard error; otherwise,
    `compare_over_images`. Over seeds, it is joined with `seed_error`, whatever the metric
    (`widened_over_seeds`). No interval exceeds the width of the metric's range.
    """
    pair = _ComparedMethods(metric, labels, a, b, margin, clusters)
    if metric.of_classes:
        tested = _compare_by_exchange(pair)
    elif "influence" in (a.basis, b.basis):
        tested = _compare_by_influence(pair)
    else:
        tested = compare_over_images(a.values, b.values, margin, clusters)
    if over == "seeds":
        tested = widened_over_seeds(tested, a.values, b.values, margin, clusters)
    return limited(tested, float(np.ptp(metric.range)))


@dataclass(frozen=True)
class _ComparedMethods:
    """Two methods on the same images, and the metric in which they are compared."""

    metric: MetricSpec
    labels: Ints
    a: Answers
    b: Answers
    margin: float | None
    clusters: Ints | None

    @property
    def change(self) -> Floats:
        """B minus A of each image, the mean over seeds and templates, float64 [n]."""
        return np.asarray(self.b.values.mean(axis=(0, 1)) - self.a.values.mean(axis=(0, 1)))


def _compare_by_exchange(pair: _ComparedMethods) -> Difference:
    """Test an average over classes by exchanging the predictions of an image."""
    metric, labels, change = pair.metric, pair.labels, pair.change
    p = exchange_p(metric, labels, pair.a.predictions, pair.b.predictions, pair.clusters)
    most = largest_influence(metric, labels)
    bias = _bias(metric, labels, pair.b) - _bias(metric, labels, pair.a)
    reach = class_reach(change, labels) if pair.clusters is None else 0.0
    margin, clusters = pair.margin, pair.clusters
    tested = _with_score_interval("permutation", p, change, most, margin, clusters, bias, reach)
    if tested.p_equal is None:
        return tested
    # Ratios are skewed, so that one end of an interval may err more often than the other: equality
    # is claimed where the whole 95 % interval is within the margin.
    return tested.model_copy(update={"p_equal": min(1.0, 2 * tested.p_equal)})


def _compare_by_influence(pair: _ComparedMethods) -> Difference:
    """Test influence values by z with their paired standard error.

    With fewer than `MIN_TESTED` images of a class, or images of a mean, there is an interval alone.
    """
    metric, labels, a, b = pair.metric, pair.labels, pair.a, pair.b
    change, clusters = pair.change, pair.clusters
    mean, error = float(change.mean()), image_error(change[None, None], clusters)
    sizes = np.bincount(labels)
    if metric.mean_over_images:
        sizes = np.array([method.images or len(labels) for method in (a, b)])
    fewest = sizes[sizes > 0].min()
    method = "influence" if fewest >= MIN_RELIABLE else "approximate"
    p = 1.0 if mean == 0 else None
    if error:
        p = 2 * float(normal_cdf(-abs(mean) / error))
    most = _largest_change(a.values, b.values, change)
    tested = _with_score_interval(method, p, change, most, pair.margin, clusters)
    update: dict[str, tuple[float, float] | None] = {}
    if fewest < MIN_TESTED:
        update = {"p": None, "p_equal": None}
    if error:
        update["interval"] = mean - Z95 * error, mean + Z95 * error
    elif metric.mean_over_images:  # such as two shares that are 0 or 1
        spreads = (metric_spread(metric, m, labels, clusters) for m in (a, b))
        of_a, of_b = (Estimate(s.value, s.interval) for s in spreads if s.interval)
        update |= {"interval": (of_b - of_a).interval, "p_equal": None}
    return tested.model_copy(update=update)


def metric_spread(
    metric: MetricSpec,
    method: Answers,
    labels: Ints,
    clusters: Ints | None = None,
    over: Over = "images",
) -> Spread:
    """Return the spread of a method in a metric, without an interval where none holds."""
    shown = spread(
        method.values,
        clusters,
        over,
        metric.range,
        method.images,
        influence=method.basis != "images",
        classes=labels if metric.of_classes else None,
        bias=_bias(metric, labels, method),
    )
    if interval_caveat(metric, labels) is None:
        return shown
    return shown.model_copy(update={"interval": None})


def _bias(metric: MetricSpec, labels: Ints, method: Answers) -> float:
    """Return the mean `small_sample_bias` of the runs of a method; 0 if it averages no ratios."""
    if not metric.of_classes:
        return 0.0
    runs = method.predictions.reshape(-1, len(labels))
    return float(np.mean([small_sample_bias(metric, labels, run) for run in runs]))


def limited(tested: Difference, most: float) -> Difference:
    """Return a difference with its interval cut at ± `most`, the largest possible difference."""
    low, high = np.clip(tested.interval, -most, most).tolist()
    return tested.model_copy(update={"interval": (low, high)})


def compare_over_images(
    a: Floats,
    b: Floats,
    margin: float | None = None,
    clusters: Ints | None = None,
    most: float | None = None,
) -> Difference:
    """Test the difference of means over images, for these seeds and templates.

    If all runs of a method agree on each image, and are right or wrong, they are tested as a single
    one: by McNemar's exact test, with Tango's interval, corrected for continuity and skewness, and
    widened to include 0 if the test does not reject. All others have a permutation test that flips
    the sign of each image's mean difference, with the interval of the same score test. If the test
    rejects, the end near 0 is that of the permutations, so that p is at most 0.05 exactly if the
    interval excludes 0. Equality is tested by two one-sided score tests (Schuirmann 1987). The
    methods may have different seeds and templates. `most` is the largest difference that an image
    may have; None: it follows from the values.
    """
    change = b.mean(axis=(0, 1)) - a.mean(axis=(0, 1))
    if clusters is None and are_answers(a, b) and np.isin(change, (-1, 0, 1)).all():
        pair = paired_test(change < 0, change > 0)
        if margin is None:
            return pair.difference
        p_equal = equality_p(pair.wins, pair.losses, len(change), margin)
        return pair.difference.model_copy(update={"p_equal": p_equal})
    p, (low, high) = sign_flips(change, clusters)
    most = _largest_change(a, b, change) if most is None else most
    tested = _with_score_interval("permutation", p, change, most, margin, clusters)
    if p <= ALPHA:
        lowest, highest = tested.interval
        ends = (low, max(highest, low)) if low > 0 else (min(lowest, high), high)
        tested = tested.model_copy(update={"interval": ends})
    return tested


def paired_on(a: Decisions, b: Decisions, rows_a: Ints, rows_b: Ints) -> Paired:
    """Compare the accuracies of two runs on the samples that these rows of each are about.

    The test is McNemar's exact one; where items are about the same images, a permutation test over
    these images.
    """
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    paired, clusters = paired_test(right_a, right_b), clusters_of(a, b, rows_a, rows_b)
    if clusters is None:
        return paired
    of_a, of_b = (right[None, None].astype(np.float64) for right in (right_a, right_b))
    tested = compare_over_images(of_a, of_b, clusters=clusters)
    return paired.model_copy(update={"difference": tested})


def clusters_of(a: Decisions, b: Decisions, rows_a: Ints, rows_b: Ints) -> Ints | None:
    """Return the clusters, int64 [rows], of what these rows of two runs decide; None: no clusters.

    Early records have none, so that those of either run serve for both.
    """
    if a.clusters is not None:
        return a.clusters[rows_a]
    return None if b.clusters is None else b.clusters[rows_b]


def compare_over_seeds(
    a: Floats, b: Floats, margin: float | None = None, clusters: Ints | None = None
) -> Difference:
    """Test the difference of means over images and seeds.

    The test, the interval and the two one-sided tests of equality use the paired differences and
    their `seed_error`. None claims more than `compare_over_images` does for these seeds, so p is at
    most 0.05 exactly if the interval excludes 0. The methods must have the same seeds, in order.
    """
    return widened_over_seeds(compare_over_images(a, b, margin, clusters), a, b, margin, clusters)


def widened_over_seeds(
    here: Difference, a: Floats, b: Floats, margin: float | None, clusters: Ints | None
) -> Difference:
    """Return a test over images that holds over seeds too: none of both claims more alone."""
    error = seed_error(b.mean(axis=1, keepdims=True) - a.mean(axis=1, keepdims=True), clusters)
    mean, reach = here.estimate, error.reach(ALPHA / 2)
    update: dict[str, Any] = {
        "method": "seeds",
        "p": max(here.p or 0.0, min(1.0, 2 * error.tail(abs(mean)))),
        "interval": (min(here.interval[0], mean - reach), max(here.interval[1], mean + reach)),
    }
    if margin is not None and here.p_equal is not None:
        update["p_equal"] = max(here.p_equal, error.tail(margin + mean), error.tail(margin - mean))
    return here.model_copy(update=update)


def sign_flips(values: Floats, clusters: Ints | None = None) -> tuple[float, tuple[float, float]]:
    """Return the two-sided p-value of a sign-flip test that the mean is 0, and a 95 % interval.

    Under the null hypothesis, the two values of an image are exchangeable, so its difference may
    have either sign. The interval inverts the test: it has each mean m for which the same flips, of
    the differences minus m, do not reject at 5 %. A binomial count flips equal differences.

    With A the sum of the flipped differences, C the sum of the signs and D the sum of the observed
    differences, a flip reaches the observed sum under mean m if |A - C m| >= |D - n m|, that is,
    for all m between (D - A) / (n - C) and (D + A) / (n + C). The ends of the interval are
    quantiles of these bounds over the flips.
    """
    sums, sizes = unit_sums(values[None], clusters)
    units, counts = np.unique(np.column_stack([sums[0], sizes]), axis=0, return_counts=True)
    total, n = float(values.sum()), len(values)
    bounds = []
    for signs in random_signs(counts, len(units)):
        flipped, signed = units.T @ signs  # A and C of each flip
        with np.errstate(divide="ignore", invalid="ignore"):  # if all signs are equal
            one = np.where(signed >= n, -np.inf, (total - flipped) / (n - signed))
            other = np.where(signed <= -n, -np.inf, (total + flipped) / (n + signed))
        lower, upper = np.sort([one, other], axis=0)
        upper[~np.isfinite(lower)] = np.inf  # equal signs reach the sum for any mean
        bounds.append((lower, upper))
    low, high = np.concatenate(bounds, axis=1)
    reached = int(((low <= ZERO_DIFFERENCE) & (high >= -ZERO_DIFFERENCE)).sum())
    beyond = int(ALPHA * (1 + len(low))) - 1  # number of bounds beyond an end of the interval
    quantiles = np.sort(low)[beyond], np.sort(high)[-1 - beyond]
    lowest, highest = (0.0 if abs(end) <= ZERO_DIFFERENCE else float(end) for end in quantiles)
    return (1 + reached) / (1 + len(low)), (lowest, highest)


def _with_score_interval(
    method: str,
    p: float | None,
    change: Floats,
    most: float,
    margin: float | None,
    clusters: Ints | None,
    bias: float = 0.0,
    reach: float = 0.0,
) -> Difference:
    """Return the p-value of a test with the interval and the test of equality of a score test.

    `most` is the largest difference that an image may have in absolute value. `bias` is by how much
    the mean change exceeds that of all such images, and `reach` the half-width of another 95 %
    interval: no claim is made that one of both intervals, moved by the bias or not, contradicts.
    """
    score = mean_score(change, clusters, (-most, most), corrected=True)
    mean, (low, high) = float(change.mean()), score.interval()
    low, high = min(low, mean - reach), max(high, mean + reach)
    ends = min(low, low - bias), max(high, high - bias)
    ends = ends if p is None else with_zero(ends, p)
    tested = tested_difference(method, len(change), mean, ends, p)
    if margin is None:
        return tested
    deviates = [
        deviate
        for side, moved in product((-1, 1), {0.0, bias})
        for deviate in (
            side * score.z(side * margin + moved),
            # A reach of 0 says nothing of its own.
            -(margin - side * (mean - moved)) * Z95 / reach if reach else -np.inf,
        )
    ]
    return tested.model_copy(update={"p_equal": float(normal_cdf(max(deviates)))})


def _largest_change(a: Floats, b: Floats, change: Floats) -> float:
    """Return by how much two methods may differ on an image that was not seen.

    1 for right or wrong answers; otherwise the largest difference seen, or the range of values.
    """
    if are_answers(a, b):
        return 1.0
    seen = float(np.abs(change).max()) or float(np.ptp(np.concatenate([a.ravel(), b.ravel()])))
    return seen or 1.0


class MethodDifference(Document):
    """The difference of two methods on the same images, among those of a table."""

    a: str  # name of method A in tables
    b: str  # name of method B in tables
    runs: tuple[Positive, Positive]  # number of runs of A, number of runs of B
    difference: Difference  # metric of B minus metric of A, not corrected for multiple tests
    p_holm: Share | None = None  # p corrected for all differences of a table; None: not tested
    different: bool = False  # whether the corrected p is at most 0.05
    margin: Share | None = None  # difference below which methods count as equal
    p_equal_holm: Share | None = None  # corrected p of the equivalence test; None without a margin
    equal: bool = False  # whether equality is shown, which is more than no significant difference


def holm(p: Sequence[float] | Floats) -> Floats:
    """Return p-values corrected by Holm's method (Scandinavian Journal of Statistics 6, 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def compare_all(
    methods: Sequence[Answers],
    labels: Ints,
    metric: MetricSpec,
    margin: float | None = None,
    clusters: Ints | None = None,
    over: Over = "images",
) -> list[MethodDifference]:
    """Return the `difference_test` of each pair of methods, not yet `corrected`."""
    pairs = list(combinations(methods, 2))
    return [
        MethodDifference(
            a=a.name,
            b=b.name,
            runs=(a.runs, b.runs),
            difference=difference_test(metric, labels, a, b, margin, clusters, over),
            margin=margin,
        )
        for a, b in counted(pairs, "Comparing methods", len(pairs), "pairs")
    ]


def corrected(differences: Sequence[MethodDifference]) -> list[MethodDifference]:
    """Return the differences with p-values corrected for all of them by Holm's method.

    Tests of difference and tests of equality are two separate families.
    """
    tested = [pair.difference for pair in differences]
    families = _holm_of_tested([d.p for d in tested]), _holm_of_tested([d.p_equal for d in tested])
    results = []
    for pair, p, p_equal in zip(differences, *families, strict=True):
        update = {
            "p_holm": p,
            "different": p is not None and p <= ALPHA,
            "p_equal_holm": p_equal,
            "equal": p_equal is not None and p_equal < ALPHA,
        }
        results.append(pair.model_copy(update=update))
    return results


def _holm_of_tested(values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected by `holm`; None, where nothing was tested, stays."""
    tested = iter(holm([p for p in values if p is not None]).tolist())
    return [None if p is None else next(tested) for p in values]


Rank = tuple[Positive, Positive]
"""Range of the places that a method may have, the best first."""


def ranks(better: Bools) -> list[Rank | None]:
    """Return the rank of each of K methods.

    It is a range from 1 + the methods that are significantly better to K − those that are
    significantly worse: "not significantly different" is not transitive, and overlapping ranges
    show that. `better` is whether row is significantly better than column, bool [K, K]. A single
    method has no rank, [None].
    """
    if len(better) == 1:
        return [None]
    lowest, highest = 1 + better.sum(axis=0), len(better) - better.sum(axis=1)
    return list(zip(lowest.tolist(), highest.tolist(), strict=True))
