"""Metrics computed from class counts, their influence values, and permutation tests of them.

Metrics such as macro F1 average a ratio of counts over classes, so they are not means over images.
But they are means of *influence values*: the metric plus its derivative with respect to the weight
of an image (the infinitesimal jackknife, Efron 1982).

Throughout, `labels` and predictions are int64 [n]. A negative prediction is that of a failed image,
counts as wrong, and belongs to no class.
"""

from collections.abc import Iterator
from itertools import accumulate
from math import comb
from typing import Any

import numpy as np

from bench.contracts.metric_spec import ClassRatio, MetricSpec
from bench.contracts.strategy import Floats, Ints
from bench.machine.libraries import sparse, special
from bench.machine.stages import counted
from bench.stats.inference.paired import Z95

PERMUTATIONS = 20_000  # per test
AT_ONCE = 1 << 19  # numbers in memory at a time: what a processor's cache holds
ROUNDED = 1e-12  # smaller sums of squares are 0: a single answer moves one by about 1
INVERTED = 60  # largest number of signs whose sum numpy draws by inverting one uniform number


def class_counts(labels: Ints, predictions: Ints, classes: int) -> tuple[Floats, Floats, Floats]:
    """Return the hits, images (support) and predictions of each class, float64 [classes] each."""
    hits, support, predicted = (
        np.bincount(values, minlength=classes).astype(np.float64)
        for values in (labels[predictions == labels], labels, predictions[predictions >= 0])
    )
    return hits, support, predicted


def class_average(metric: MetricSpec, hits: Floats, support: Floats, predicted: Floats) -> float:
    """Return a metric that averages a ratio over the classes with images."""
    assert metric.ratio is not None
    weights = support if metric.by_support else support > 0
    return float(np.average(_class_ratios(metric.ratio, hits, support, predicted), weights=weights))


def image_values(metric: MetricSpec, labels: Ints, predicted: Ints) -> Floats:
    """Return the value of each image, float64 [n], whose mean is the metric.

    For accuracy, it is 1 if the prediction is right and 0 otherwise; for averages of class ratios,
    it is the influence value.
    """
    if metric.mean_over_images:
        return np.asarray(predicted == labels, dtype=np.float64)
    assert metric.ratio is not None
    ratio, n, classes = metric.ratio, len(labels), 1 + int(max(labels.max(), predicted.max()))
    hits, support, predictions = class_counts(labels, predicted, classes)
    ratios = _class_ratios(ratio, hits, support, predictions)
    weights = _class_weights(metric, support)
    value = float(ratios @ weights)
    denominators = ratio.support * support + ratio.predicted * predictions
    slope = n * weights / np.where(denominators > 0, denominators, 1)
    influence = ratio.hits * (predicted == labels) * slope[labels]
    influence -= ratio.support * (slope * ratios)[labels]
    influence -= ratio.predicted * np.where(predicted >= 0, (slope * ratios)[predicted], 0.0)
    if metric.by_support:  # the class weights depend on the images as well
        influence += ratios[labels] - value
    return np.asarray(value + influence)


def by_class(metric: MetricSpec) -> bool:
    """Return whether classes have equal weights, so that each is a sample of its own."""
    return metric.ratio is not None and not metric.by_support


def class_reach(values: Floats, labels: Ints) -> float:
    """Return the half-width of the 95 % interval of an average over classes of equal weight.

    `values` are float64 [n], influence values or their means over runs. Each class is a sample of
    its own: its variance within is divided by its images less one, and Student's t has
    Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). Classes of a single image have
    the mean variance of the others, in terms of the answers to their images.
    """
    n, counts = len(values), np.bincount(labels)
    counts = counts[counts > 0]
    _, member = np.unique(labels, return_inverse=True)
    means = np.bincount(member, values) / counts
    squares = np.bincount(member, (values - means[member]) ** 2)
    several, freedom = counts > 1, np.maximum(counts - 1, 1)
    within = squares / freedom * counts  # sum of the values of a class, its variance
    if several.any():
        within[~several] = (within * counts)[several].mean()
    between = float((counts * (means - values.mean()) ** 2).sum())
    variance = float(within.sum()) + between
    if variance < ROUNDED:
        return 0.0
    uncertain = float((within**2 / freedom)[several].sum()) + between**2 / max(1, n - 1)
    t = float(special.stdtrit(variance**2 / uncertain, 0.975)) if uncertain else Z95
    return t * float(np.sqrt(variance)) / n


def interval_caveat(metric: MetricSpec, labels: Ints) -> tuple[bool, str | None]:
    """Return whether a metric has an interval, and why it has none or an approximate one.

    The precision of a class with few images is biased upwards, because a class that is rarely
    predicted has a precision of 0 or by chance a high one: no interval from variances holds.
    `benchmarks/study_levels.py --classes` shows how often intervals hold.
    """
    if metric.ratio is None or metric.mean_over_images or not metric.ratio.predicted:
        return True, None
    counts = np.bincount(labels)
    fewest = int(counts[counts > 0].min())
    least, enough = (10, 20) if not metric.ratio.support else (0, 10)
    images = "1 image" if fewest == 1 else f"{fewest} images"
    if fewest < least:
        return False, f"none: with {images} in a class, {metric.words} is biased"
    return True, f"approximate: a class has {images}" if fewest < enough else None


def largest_influence(metric: MetricSpec, labels: Ints) -> float:
    """Return the most that the answer to an image moves the sum of the images' values."""
    support = np.bincount(labels).astype(np.float64)
    return float((len(labels) * _class_weights(metric, support) / np.maximum(support, 1)).max())


def _class_ratios(ratio: ClassRatio, hits: Any, support: Floats, predicted: Any) -> Any:
    """Return the ratio of each class, [..., classes] as `hits`; 0 if its denominator is 0."""
    denominators = ratio.support * support + ratio.predicted * predicted
    return ratio.hits * hits / np.where(denominators > 0, denominators, 1)


def _class_weights(metric: MetricSpec, support: Floats) -> Floats:
    """Return the weight of each class in the metric, with a sum of 1; 0 for an empty class."""
    if metric.by_support:
        return np.asarray(support / support.sum())
    return np.asarray((support > 0) / np.count_nonzero(support))


def exchange_p(
    metric: MetricSpec, labels: Ints, a: Ints, b: Ints, clusters: Ints | None = None
) -> float:
    """Return the two-sided p-value of a paired permutation test of two methods.

    The null hypothesis is that the predictions of A and B on an image, or on a cluster of images,
    are exchangeable. Each permutation exchanges them at random, and computes the difference of the
    metric again; for several runs, from their mean counts. Images with the same label and
    predictions are permuted together, by a binomial count. `a` and `b` are int64 [..., n].
    """
    classes = 1 + int(max(labels.max(), a.max(), b.max()))
    support = np.bincount(labels, minlength=classes).astype(np.float64)
    units, counts = _units(labels, a, b, clusters)
    counts_a, counts_b = (_image_counts(labels, runs, classes) for runs in (a, b))
    place = units, np.arange(len(units))
    member = sparse.coo_array((np.ones(len(units)), place))  # [units, images]
    change = (member.tocsr() @ (counts_b - counts_a)).tocsr()  # [units, 2 · classes]
    middle, half = np.asarray((counts_a + counts_b).sum(axis=0)).ravel() / 2, change / 2
    ratio, weights = metric.ratio, _class_weights(metric, support)
    assert ratio is not None

    def difference(shift: Any) -> Any:
        """Return B minus A of the metric if their counts are middle + shift and middle - shift."""
        value_b, value_a = (
            _class_ratios(ratio, side[..., :classes], support, side[..., classes:]) @ weights
            for side in (middle + shift, middle - shift)
        )
        return value_b - value_a

    observed = abs(float(difference(np.asarray(half.sum(axis=0)).ravel())))
    changes = np.flatnonzero(np.asarray(abs(half).sum(axis=1)).ravel() > 1e-12)
    if not len(changes):
        return 1.0
    # A row is the sum over its unit: identical images with a sign each, or a cluster with one sign.
    times = counts[changes] if clusters is None else np.ones(len(changes), dtype=np.int64)
    half = half[changes].multiply(1 / times[:, None]).tocsr()
    reached = 0
    for signs in random_signs(times, len(changes) + 4 * classes):
        permuted = np.abs(difference((half.T @ signs).T))
        reached += int((permuted >= observed * (1 - 1e-9) - 1e-12).sum())
    return (1 + reached) / (1 + PERMUTATIONS)


def random_signs(counts: Ints, numbers: int) -> Iterator[Floats]:
    """Yield batches of PERMUTATIONS sums of `counts` random signs, float64 [units, batch].

    A permutation takes `numbers` numbers in memory, which limits the size of a batch. The sums are
    those of `rng.binomial`, which takes five times as long because it prepares each draw anew.
    """
    rng, size = np.random.default_rng(0), max(1, AT_ONCE // numbers)
    sizes = [min(size, PERMUTATIONS - start) for start in range(0, PERMUTATIONS, size)]
    few: list[tuple[Any, list[float]]] = []  # units of a count, and its distribution function
    for count in np.unique(counts).tolist() if counts.max() <= INVERTED else ():
        ways = accumulate(comb(count, heads) for heads in range(count))
        few.append((counts == count, [total / 2**count for total in ways]))
    for size in counted(sizes, "Permutation test", len(sizes), "batches"):
        if few:
            uniform = np.ascontiguousarray(rng.random((size, len(counts))).T)
            heads: Any = np.empty(uniform.shape, dtype=np.int8)
            for units, below in few:
                heads[units] = sum((uniform[units] > share for share in below), np.int8(0))
        else:
            heads = rng.binomial(counts, 0.5, (size, len(counts))).T
        yield 2.0 * heads - counts[:, None]


def _units(labels: Ints, a: Ints, b: Ints, clusters: Ints | None) -> tuple[Ints, Ints]:
    """Return the unit of each image, a cluster or equal images, and units' sizes, int64."""
    if clusters is not None:
        _, units, counts = np.unique(clusters, return_inverse=True, return_counts=True)
        return units, counts
    n = len(labels)
    runs = [np.sort(method.reshape(-1, n), axis=0) for method in (a, b)]
    rows = np.concatenate([labels[None, :], *runs]).T
    _, units, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return units.ravel(), counts


def _image_counts(labels: Ints, predictions: Ints, classes: int) -> Any:
    """Return each image's hits and predictions of classes, averaged, sparse [n, 2 · classes].

    `predictions` are those of one or more runs, int64 [..., n].
    """
    n, rows, columns = len(labels), [], []
    runs = predictions.reshape(-1, n)
    for run in runs:
        right, predicted = np.flatnonzero(run == labels), np.flatnonzero(run >= 0)
        rows += [right, predicted]
        columns += [labels[right], classes + run[predicted]]
    place = (np.concatenate(rows), np.concatenate(columns))
    weights = np.full(len(place[0]), 1 / len(runs))
    return sparse.coo_array((weights, place), shape=(n, 2 * classes)).tocsr()
