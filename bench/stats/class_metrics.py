"""Metrics that differences are tested in: as means over images, and under exchanged predictions.

Accuracy is a mean over images. Other metrics are made of the counts of each class, to
which each image adds a little: its value is the metric, and how far the metric would move if there
were more such images (the infinitesimal jackknife, Efron 1982). The mean of the values over the
images is the metric, so that whatever holds for a mean over images serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.metrics import METRICS, ClassRatio, MetricSpec

PERMUTATIONS = 20_000
AT_ONCE = 1 << 24  # signs and counts that are in memory together

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def class_counts(labels: Ints, predictions: Ints, classes: int) -> tuple[Floats, Floats, Floats]:
    """Return hits, images and predictions of each class, float64 [classes] each.

    Args:
        labels: int64 [n], the true classes.
        predictions: int64 [n]; a negative one is of no class.
        classes: number of classes.
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


def image_values(metric: str, labels: Ints, predictions: Ints) -> Floats:
    """Return the values of each image whose mean over the images is the metric.

    Args:
        metric: which one.
        labels: int64 [n], the true classes.
        predictions: int64 [..., n]; a negative one is of no class, and wrong.

    Returns:
        float64, of the shape of `predictions`.
    """
    spec = METRICS[metric]
    if spec.mean_over_images:
        return np.asarray(predictions == labels, dtype=np.float64)
    flat = predictions.reshape(-1, len(labels))
    rows = [_values(spec, labels, predicted) for predicted in flat]
    return np.asarray(rows, dtype=np.float64).reshape(predictions.shape)


def _values(metric: MetricSpec, labels: Ints, predicted: Ints) -> Floats:
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
    """Return what each class counts in the metric; a class without images counts nothing."""
    if metric.by_support:
        return np.asarray(support / support.sum())
    return np.asarray((support > 0) / np.count_nonzero(support))


def exchange_p(
    metric: str,
    labels: Ints,
    a: Sequence[Ints],
    b: Sequence[Ints],
    clusters: Ints | None = None,
    seed: int = 0,
) -> float:
    """Return the two-sided p of a paired permutation test that two methods have the same metric.

    Under the null, whatever A's runs said of an image B's might as well have said. So each image's
    predictions are exchanged or not, and the metric of both is computed anew. Of several runs it is
    of their mean counts. Images with the same predictions are counted and not drawn one by one.

    Args:
        metric: which one.
        labels: int64 [n], the true classes.
        a: int64 [..., n] for each member of A, which count alike; one, but of pooled methods.
        b: likewise of B.
        clusters: int64 [n], images that are exchanged together; None: each by itself.
        seed: of the permutations.
    """
    classes = 1 + max(int(labels.max()), *(int(one.max()) for one in (*a, *b)))
    support = np.bincount(labels, minlength=classes).astype(np.float64)
    units, counts = _units(labels, a, b, clusters)
    of_a, of_b = (_tallies(labels, side, classes) for side in (a, b))
    moved = _summed(of_b - of_a, units, len(counts))  # [units, 2 · classes]
    middle, half = np.asarray((of_a + of_b).sum(axis=0)).ravel() / 2, moved / 2
    spec = METRICS[metric]
    ratio, share = spec.ratio, _weights(spec, support)
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
    rng, reached, left = np.random.default_rng(seed), 0, PERMUTATIONS
    step = max(1, AT_ONCE // (len(changes) + 4 * classes))
    while left:
        size = min(step, left)
        signs = 2 * rng.binomial(times, 0.5, size=(size, len(changes))) - times
        found = np.abs(difference((half.T @ signs.T.astype(np.float64)).T))
        reached += int((found >= observed * (1 - 1e-9) - 1e-12).sum())
        left -= size
    return (1 + reached) / (1 + PERMUTATIONS)


def _units(
    labels: Ints, a: Sequence[Ints], b: Sequence[Ints], clusters: Ints | None
) -> tuple[Ints, Ints]:
    """Return of each image which unit it is in, int64 [n], and the images of each unit.

    A unit is a cluster, or the images of one class with the same predictions.
    """
    if clusters is not None:
        _, units, counts = np.unique(clusters, return_inverse=True, return_counts=True)
        return units, counts
    n = len(labels)
    runs = [np.sort(one.reshape(-1, n), axis=0) for one in (*a, *b)]
    rows = np.concatenate([labels[None, :], *runs]).T
    _, units, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    return units.ravel(), counts


def _tallies(labels: Ints, members: Sequence[Ints], classes: int) -> Any:
    """Return what each image adds to the counts, sparse float64 [n, 2 · classes].

    The first half is of the images of a class that are right, the second of those taken for it;
    each is the mean over the members, and of a member over its runs.
    """
    from scipy.sparse import coo_array

    n, rows, columns, given = len(labels), [], [], []
    for member in members:
        runs = member.reshape(-1, n)
        for run in runs:
            right, taken = np.flatnonzero(run == labels), np.flatnonzero(run >= 0)
            rows += [right, taken]
            columns += [labels[right], classes + run[taken]]
            given.append(np.full(len(right) + len(taken), 1 / (len(runs) * len(members))))
    place = (np.concatenate(rows), np.concatenate(columns))
    return coo_array((np.concatenate(given), place), shape=(n, 2 * classes)).tocsr()


def _summed(rows: Any, units: Ints, count: int) -> Any:
    """Return the rows of each unit's images, added, sparse [count, columns]."""
    from scipy.sparse import coo_array

    n = len(units)
    member = coo_array((np.ones(n), (units, np.arange(n))), shape=(count, n)).tocsr()
    return (member @ rows).tocsr()
