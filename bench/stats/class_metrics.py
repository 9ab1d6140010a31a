"""Metrics whose differences are tested: as means over images, and under exchanged predictions.

Accuracy is a mean over images. Other metrics are functions of the counts of each class:
the value of an image is the metric plus the metric's derivative in the weight of this image (the
infinitesimal jackknife, Efron 1982). The mean of the values is the metric, so methods for means
over images serve all metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.contracts.metrics import ClassRatio, MetricSpec
from bench.contracts.strategy import Floats, Ints

PERMUTATIONS = 20_000  # per test
AT_ONCE = 1 << 24  # signs and counts in memory at a time


def class_counts(labels: Ints, predictions: Ints, classes: int) -> tuple[Floats, Floats, Floats]:
    """Return hits, images and predictions of each class, float64 [classes] each.

    `labels` and `predictions` are int64 [n]; a negative prediction is of no class.
    """
    hits, support, predicted = (
        np.bincount(values, minlength=classes).astype(np.float64)
        for values in (labels[predictions == labels], labels, predictions[predictions >= 0])
    )
    return hits, support, predicted


def class_average(metric: MetricSpec, hits: Floats, support: Floats, predicted: Floats) -> float:
    """Return a metric that averages a figure of each class, from the counts of each class."""
    assert metric.ratio is not None
    weights = support if metric.by_support else support > 0
    return float(np.average(_of_classes(metric.ratio, hits, support, predicted), weights=weights))


def image_values(metric: MetricSpec, labels: Ints, predicted: Ints) -> Floats:
    """Return values of each image whose mean is the metric, float64 [n].

    `labels` are int64 [n], true classes; `predicted` int64 [n], negative where an image failed,
    which is wrong.
    """
    if metric.mean_over_images:
        return np.asarray(predicted == labels, dtype=np.float64)
    assert metric.ratio is not None
    ratio, n, classes = metric.ratio, len(labels), 1 + int(max(labels.max(), predicted.max()))
    hits, support, taken = class_counts(labels, predicted, classes)
    figures = _of_classes(ratio, hits, support, taken)
    share = _weights(metric, support)
    value = float(figures @ share)
    counted = ratio.support * support + ratio.predicted * taken
    slope = n * share / np.where(counted > 0, counted, 1)
    moved = ratio.hits * (predicted == labels) * slope[labels]
    moved -= ratio.support * (slope * figures)[labels]
    moved -= ratio.predicted * np.where(predicted >= 0, (slope * figures)[predicted], 0.0)
    if metric.by_support:  # the weight of a class, too, is a count of images
        moved += figures[labels] - value
    return np.asarray(value + moved)


def _of_classes(ratio: ClassRatio, hits: Any, support: Floats, predicted: Any) -> Any:
    """Return the figure of each class, of the shape of `hits`."""
    counted = ratio.support * support + ratio.predicted * predicted
    return ratio.hits * hits / np.where(counted > 0, counted, 1)


def _weights(metric: MetricSpec, support: Floats) -> Floats:
    """Return the weight of each class in the metric; 0 for a class without images."""
    if metric.by_support:
        return np.asarray(support / support.sum())
    return np.asarray((support > 0) / np.count_nonzero(support))


def exchange_p(
    metric: MetricSpec,
    labels: Ints,
    a: Sequence[Ints],
    b: Sequence[Ints],
    clusters: Ints | None = None,
) -> float:
    """Return the two-sided p of a paired permutation test that two methods have the same metric.

    Under the null, the predictions of A and B on an image are exchangeable. So each image's
    predictions are exchanged or not, and the metric of both is computed again; of several runs,
    from their mean counts. Images with the same predictions are counted, not drawn one by one.

    `a` and `b` are predicted classes of each member, int64 [..., n], several for pooled methods;
    `clusters`, int64 [n], are images exchanged together, and None exchanges each by itself.
    """
    from scipy.sparse import coo_array

    classes = 1 + max(int(labels.max()), *(int(member.max()) for member in (*a, *b)))
    support = np.bincount(labels, minlength=classes).astype(np.float64)
    units, counts = _units(labels, a, b, clusters)
    of_a, of_b = (_tallies(labels, side, classes) for side in (a, b))
    member = coo_array((np.ones(len(units)), (units, np.arange(len(units)))))  # [units, images]
    moved = (member.tocsr() @ (of_b - of_a)).tocsr()  # [units, 2 · classes]
    middle, half = np.asarray((of_a + of_b).sum(axis=0)).ravel() / 2, moved / 2
    ratio, share = metric.ratio, _weights(metric, support)
    assert ratio is not None

    def difference(shift: Any) -> Any:
        ends = (middle + shift, middle - shift)
        of_b, of_a = (
            _of_classes(ratio, counts[..., :classes], support, counts[..., classes:]) @ share
            for counts in ends
        )
        return of_b - of_a

    observed = abs(float(difference(np.asarray(half.sum(axis=0)).ravel())))
    changes = np.flatnonzero(np.asarray(abs(half).sum(axis=1)).ravel() > 1e-12)
    if not len(changes):
        return 1.0
    # a row is the sum over its images, which are alike or change together
    alone = clusters is None
    times = counts[changes] if alone else np.ones(len(changes), dtype=np.int64)
    half = half[changes].multiply(1 / times[:, None]).tocsr()
    reached = 0
    for signs in random_signs(times, len(changes) + 4 * classes):
        permuted = np.abs(difference((half.T @ signs.T.astype(np.float64)).T))
        reached += int((permuted >= observed * (1 - 1e-9) - 1e-12).sum())
    return (1 + reached) / (1 + PERMUTATIONS)


def random_signs(counts: Ints, numbers: int) -> Iterator[Ints]:
    """Yield sums of `counts` random signs, int64 [permutations at a time, units].

    `numbers` is how many numbers a permutation takes in memory, which limits those at a time.
    """
    rng, left = np.random.default_rng(0), PERMUTATIONS
    while left:
        size = min(left, max(1, AT_ONCE // numbers))
        yield 2 * rng.binomial(counts, 0.5, size=(size, len(counts))) - counts
        left -= size


def _units(
    labels: Ints, a: Sequence[Ints], b: Sequence[Ints], clusters: Ints | None
) -> tuple[Ints, Ints]:
    """Return each image's unit, a cluster or alike images of a class, and the units' sizes."""
    if clusters is not None:
        _, units, counts = np.unique(clusters, return_inverse=True, return_counts=True)
        return units, counts
    n = len(labels)
    runs = [np.sort(member.reshape(-1, n), axis=0) for member in (*a, *b)]
    rows = np.concatenate([labels[None, :], *runs]).T
    _, units, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return units.ravel(), counts


def _tallies(labels: Ints, members: Sequence[Ints], classes: int) -> Any:
    """Return each image's contribution to the counts, sparse float64 [n, 2 · classes].

    First the right decisions of each class, then its predictions; means over the members, and of a
    member over its runs.
    """
    from scipy.sparse import coo_array

    n, rows, columns, weights = len(labels), [], [], []
    for member in members:
        runs = member.reshape(-1, n)
        for run in runs:
            right, taken = np.flatnonzero(run == labels), np.flatnonzero(run >= 0)
            rows += [right, taken]
            columns += [labels[right], classes + run[taken]]
            weights.append(np.full(len(right) + len(taken), 1 / (len(runs) * len(members))))
    place = (np.concatenate(rows), np.concatenate(columns))
    return coo_array((np.concatenate(weights), place), shape=(n, 2 * classes)).tocsr()
