"""Metrics computed from class counts, their influence values, and permutation tests of them.

Metrics such as macro F1 average a ratio of counts over classes, so they are not means over images.
But they are means of *influence values*: the metric plus its derivative with respect to the weight
of an image (the infinitesimal jackknife, Efron 1982).

Throughout, `labels` and predictions are int64 [n]. A negative prediction is that of a failed image,
counts as wrong, and belongs to no class.
"""

from collections.abc import Iterator
from functools import cache
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
MIN_F1, MIN_PRECISION = 10, 100  # images of the smallest class; with fewer, no interval holds
MOST_PRECISIONS = 20  # classes with images; with more, no interval of an average precision holds
INVERTED = 60  # largest number of signs whose sum numpy draws by inverting one uniform number


def class_counts(labels: Ints, predictions: Ints, classes: int) -> tuple[Floats, Floats, Floats]:
    """Return the hits, images (support) and predictions of each class, float64 [classes] each."""
    hits, support, predicted = (
        np.bincount(values, minlength=classes).astype(np.float64)
        for values in (labels[predictions == labels], labels, predictions[predictions >= 0])
    )
    return hits, support, predicted


def count_earlier(labels: Ints) -> Ints:
    """Return for each label how often it occurred before: [7, 7, 2, 7] → [0, 1, 0, 2]."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    earlier = np.empty(len(labels), np.int64)
    earlier[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return earlier


def class_average(metric: MetricSpec, hits: Floats, support: Floats, predicted: Floats) -> float:
    """Return a metric that averages a ratio over the classes with images."""
    assert metric.ratio is not None
    weights = support if metric.by_support else support > 0
    return float(np.average(_class_ratios(metric.ratio, hits, support, predicted), weights=weights))


def image_values(metric: MetricSpec, labels: Ints, predicted: Ints) -> Floats:
    """Return the value of each image, float64 [n], whose mean is the metric.

    For accuracy, it is 1 if the prediction is right and 0 otherwise; for averages of class ratios,
    it is the influence value. The ratio of a class is r = h hits / D, D = s support + p predicted.
    Its derivative by the weight of an image is h / D for a hit of the class, and -s r / D and
    -p r / D for an image in its support and predictions.
    """
    if metric.mean_over_images:
        return np.asarray(predicted == labels, dtype=np.float64)
    assert metric.ratio is not None
    ratio, n, classes = metric.ratio, len(labels), 1 + int(max(labels.max(), predicted.max()))
    hits, support, predictions = class_counts(labels, predicted, classes)
    ratios = _class_ratios(ratio, hits, support, predictions)
    weights = _class_weights(metric, support)
    value = float(ratios @ weights)
    scale = n * weights / _denominators(ratio, support, predictions)
    influence = ratio.hits * (predicted == labels) * scale[labels]
    influence -= ratio.support * (scale * ratios)[labels]
    influence -= ratio.predicted * np.where(predicted >= 0, (scale * ratios)[predicted], 0.0)
    if metric.by_support:  # the class weights depend on the images as well
        influence += ratios[labels] - value
    return np.asarray(value + influence)


def class_reach(values: Floats, labels: Ints) -> float:
    """Return the half-width of the 95 % interval of an average over classes.

    `values` are float64 [n], influence values or their means over runs. Each class is a sample of
    its own: its variance within is divided by its images less one, and Student's t has
    Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946): the squared sum of variances,
    divided by the sum of their squares over their own degrees of freedom.
    """
    n = len(values)
    _, member, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.bincount(member, values) / counts
    squares = np.bincount(member, (values - means[member]) ** 2)
    several, freedom = counts > 1, np.maximum(counts - 1, 1)
    within = squares / freedom * counts  # variance of the sum of a class's values
    if several.any():
        # The variance within a class of one image is not known. It is taken to be the mean of the
        # other classes' variances, each scaled to a class of one image, whose answer weighs more.
        within[~several] = (within * counts)[several].mean()
    between = float((counts * (means - values.mean()) ** 2).sum())
    variance = float(within.sum()) + between
    if variance < ROUNDED:
        return 0.0
    of_freedom = float((within**2 / freedom)[several].sum()) + between**2 / max(1, n - 1)
    t = float(special.stdtrit(variance**2 / of_freedom, 0.975)) if of_freedom else Z95
    return t * float(np.sqrt(variance)) / n


def small_sample_bias(metric: MetricSpec, labels: Ints, predicted: Ints) -> float:
    """Return by how much an average of class ratios is expected to exceed that of all such images.

    A ratio is not linear in its counts, so that its mean over samples is not its value for all
    images. To second order, the difference is half the sum of its second derivatives by the hits
    and by the false positives of a class, times their variances, each class being a sample of its
    own. It is added up over classes, while standard errors average out: with many classes, an
    interval about the uncorrected value misses the true one (`benchmarks/coverage.py classes`).
    """
    assert metric.ratio is not None
    ratio, classes = metric.ratio, 1 + int(max(labels.max(), predicted.max()))
    hits, support, predictions = class_counts(labels, predicted, classes)
    freedom = np.maximum(support - 1, 1)
    wrong = (predicted != labels) & (predicted >= 0)
    pairs, counts = np.unique(labels[wrong] * classes + predicted[wrong], return_counts=True)
    true, taken = np.divmod(pairs, classes)
    variances = counts * (support[true] - counts) / freedom[true]
    of_false = np.bincount(taken, variances, classes)
    of_hits = hits * (support - hits) / freedom
    cubed = _denominators(ratio, support, predictions) ** 3
    rest = ratio.support * support + ratio.predicted * (predictions - hits)
    curved = ratio.predicted * hits * of_false - rest * of_hits
    bias = ratio.hits * ratio.predicted * curved / cubed
    return float(bias @ _class_weights(metric, support))


def interval_caveat(metric: MetricSpec, labels: Ints) -> str | None:
    """Return why an average over classes has no interval, or None if its interval holds.

    An interval is given where its worst coverage is at least 93 %: of any accuracy, and whether
    errors spread over the classes or are drawn to one (`benchmarks/coverage.py classes`). Averages
    of precisions need many images of few classes, because a class that is rarely predicted has a
    precision of 0 or, by chance, a high one.
    """
    if not metric.of_classes or metric.ratio is None or not metric.ratio.predicted:
        return None
    counts = np.bincount(labels)
    sizes = counts[counts > 0]
    needed = MIN_F1 if metric.ratio.support else MIN_PRECISION
    many = not metric.ratio.support and len(sizes) > MOST_PRECISIONS
    if many:
        return f"none: intervals of {metric.words} hold for {MOST_PRECISIONS} classes or fewer"
    if sizes.min() >= needed:
        return None
    images = "1 image" if sizes.min() == 1 else f"{sizes.min()} images"
    return (
        f"none: a class has {images}, and intervals of {metric.words} hold from {needed} per class"
    )


def largest_influence(metric: MetricSpec, labels: Ints) -> float:
    """Return by how much another answer to one image can change the sum of the images' values."""
    support = np.bincount(labels).astype(np.float64)
    return float((len(labels) * _class_weights(metric, support) / np.maximum(support, 1)).max())


def _class_ratios(ratio: ClassRatio, hits: Any, support: Floats, predicted: Any) -> Any:
    """Return the ratio of each class, [..., classes] as `hits`; 0 if its denominator is 0."""
    return ratio.hits * hits / _denominators(ratio, support, predicted)


def _denominators(ratio: ClassRatio, support: Floats, predicted: Any) -> Any:
    """Return the denominators of the class ratios; 1 instead of 0, where there are no hits."""
    denominators = ratio.support * support + ratio.predicted * predicted
    return np.where(denominators > 0, denominators, 1)


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
    unit_of_image, sizes = _units(labels, a, b, clusters)
    counts_a, counts_b = (_image_counts(labels, runs, classes) for runs in (a, b))
    entries = unit_of_image, np.arange(len(labels))
    in_unit = sparse.coo_array((np.ones(len(labels)), entries)).tocsr()  # [units, images]
    half = (in_unit @ (counts_b - counts_a)).tocsr() / 2  # of B minus A, [units, 2 · classes]
    middle = np.asarray((counts_a + counts_b).sum(axis=0)).ravel() / 2
    ratio, weights = metric.ratio, _class_weights(metric, support)
    assert ratio is not None

    def value(counts: Any) -> Any:
        """Return the metric of hits and predictions of each class, [..., 2 · classes]."""
        hits, predicted = counts[..., :classes], counts[..., classes:]
        return _class_ratios(ratio, hits, support, predicted) @ weights

    def difference(shift: Any) -> Any:
        """Return B minus A of the metric if their counts are middle + shift and middle - shift."""
        return value(middle + shift) - value(middle - shift)

    observed = abs(float(difference(np.asarray(half.sum(axis=0)).ravel())))
    changes = np.flatnonzero(np.asarray(abs(half).sum(axis=1)).ravel() > ROUNDED)
    if not len(changes):
        return 1.0
    # A row is the sum over its unit: identical images with a sign each, or a cluster with one sign.
    signs_of_row = sizes[changes] if clusters is None else np.ones(len(changes), dtype=np.int64)
    half = half[changes].multiply(1 / signs_of_row[:, None]).tocsr()
    enough = observed * (1 - 1e-9) - ROUNDED  # rounding hides no equal difference
    reached = 0
    for signs in random_signs(signs_of_row, len(changes) + 4 * classes):
        reached += int((np.abs(difference((half.T @ signs).T)) >= enough).sum())
    return (1 + reached) / (1 + PERMUTATIONS)


def random_signs(counts: Ints, numbers: int) -> Iterator[Floats]:
    """Yield batches of PERMUTATIONS sums of `counts` random signs, float64 [units, batch].

    A permutation takes `numbers` numbers in memory, which limits the size of a batch. The sums are
    those of `rng.binomial`, which takes five times as long because it prepares each draw anew.
    """
    rng, most = np.random.default_rng(0), max(1, AT_ONCE // numbers)
    sizes = [min(most, PERMUTATIONS - start) for start in range(0, PERMUTATIONS, most)]
    inverted = counts.max() <= INVERTED
    for size in counted(sizes, "Permutation test", len(sizes), "batches"):
        if inverted:
            heads = _heads(counts, np.ascontiguousarray(rng.random((size, len(counts))).T))
        else:
            heads = rng.binomial(counts, 0.5, (size, len(counts))).T
        yield 2.0 * heads - counts[:, None]


def _heads(counts: Ints, uniform: Floats) -> Any:
    """Return numbers of heads in `counts` tosses, int8 [units, batch], by inverting `uniform`."""
    heads = np.empty(uniform.shape, dtype=np.int8)
    for count in np.unique(counts).tolist():
        units = counts == count
        heads[units] = sum((uniform[units] > p for p in _distribution(count)), np.int8(0))
    return heads


@cache
def _distribution(count: int) -> list[float]:
    """Return the probabilities of at most 0, 1, … count - 1 heads in `count` tosses."""
    return [ways / 2**count for ways in accumulate(comb(count, k) for k in range(count))]


def _units(labels: Ints, a: Ints, b: Ints, clusters: Ints | None) -> tuple[Ints, Ints]:
    """Return the unit of each image, a cluster or equal images, and units' sizes, int64."""
    if clusters is not None:
        _, units, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
        return units, sizes
    n = len(labels)
    # Only the mean over runs counts, so that predictions of a method are equal in any order.
    runs = [np.sort(method.reshape(-1, n), axis=0) for method in (a, b)]
    rows = np.concatenate([labels[None, :], *runs]).T
    _, units, sizes = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return units.ravel(), sizes


def _image_counts(labels: Ints, predictions: Ints, classes: int) -> Any:
    """Return each image's hits and predictions, means over runs, sparse [n, 2 · classes]."""
    n, rows, columns = len(labels), [], []
    runs = predictions.reshape(-1, n)
    for run in runs:
        right, predicted = np.flatnonzero(run == labels), np.flatnonzero(run >= 0)
        rows += [right, predicted]
        columns += [labels[right], classes + run[predicted]]
    entries = np.concatenate(rows), np.concatenate(columns)
    weights = np.full(len(entries[0]), 1 / len(runs))
    return sparse.coo_array((weights, entries), shape=(n, 2 * classes)).tocsr()
