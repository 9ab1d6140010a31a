"""Many comparisons on the same images: tests, their correction, and what may be called equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.stats.class_metrics import PERMUTATIONS, Metric, exchange_p, image_values
from bench.stats.crossed import are_answers, resampled_means
from bench.stats.paired import ALPHA, Z95, difference_interval, mcnemar, score_statistic
from bench.store.fields import Document, Number, Positive, Share

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What the runs of a method said of the same images.

    Attributes:
        name: of the method, as tables call it.
        members: int64 [seeds, templates, n] each, the predicted classes: one array, but of a group
            of methods one for each, and each counts alike.
    """

    name: str
    members: tuple[Ints, ...]

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return sum(one.shape[0] * one.shape[1] for one in self.members)

    def values(self, metric: Metric, labels: Ints) -> Floats:
        """Return the values of each image whose mean is the metric, [seeds, templates, n].

        Of a group they are the mean over its members, [1, 1, n].
        """
        if len(self.members) == 1:
            return image_values(metric, labels, self.members[0])
        return np.asarray(self.of_members(metric, labels).mean(axis=0, keepdims=True))

    def of_members(self, metric: Metric, labels: Ints) -> Floats:
        """Return the same of each member, the mean over its runs, [members, 1, n]."""
        found = [image_values(metric, labels, one) for one in self.members]
        return np.stack([one.mean(axis=(0, 1))[None] for one in found])


class Difference(Document):
    """One method less another, on the same images."""

    a: str
    """One method, as tables call it."""
    b: str
    """The other; the difference is B less A."""
    n: Positive
    """Images that all runs of both have."""
    runs: tuple[Positive, Positive]
    """Of A, and of B."""
    difference: Number
    """Of the accuracies, or balanced accuracies."""
    interval: tuple[Number, Number]
    """95 %, of this difference alone."""
    test: str
    """`mcnemar` of two runs, or `permutation` of the means over several."""
    p: Share
    """Two-sided."""
    p_holm: Share
    """Corrected for all differences that are shown with it."""
    different: bool
    """Corrected p below 0.05."""
    margin: Share | None = None
    """Within which methods count as equal."""
    p_equal: Share | None = None
    """Of the test that the difference is within the margin, corrected; None: no margin is set."""
    equal: bool = False
    """Shown to be within the margin; what is not different is not equal for that."""


def holm(p: Sequence[float] | Floats) -> Floats:
    """Return p corrected so that one false finding among all is as rare as one alone was.

    Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    given = np.asarray(p, dtype=np.float64)
    order = np.argsort(given)
    steps = given[order] * np.arange(len(given), 0, -1)
    found = np.empty_like(given)
    found[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return found


def permutation_p(differences: Floats, clusters: Ints | None = None, seed: int = 0) -> float:
    """Return the two-sided p of a paired permutation test that the mean difference is 0.

    Under the null each image's two values may be exchanged, so its difference may have either sign.
    Images with the same difference are counted and not drawn one by one.

    Args:
        differences: [n], of each image.
        clusters: int64 [n], images that are exchanged together; None: each by itself.
        seed: of the permutations.
    """
    if clusters is not None:
        _, member = np.unique(clusters, return_inverse=True)
        differences = np.bincount(member, weights=differences).astype(np.float64)
    size, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(size):
        return 1.0
    rng = np.random.default_rng(seed)
    signs = 2 * rng.binomial(counts, 0.5, size=(PERMUTATIONS, len(counts))) - counts
    reached = np.abs(signs @ size) >= abs(differences.sum()) * (1 - 1e-9)
    return float((1 + reached.sum()) / (1 + PERMUTATIONS))


def differ(a: Floats, b: Floats, clusters: Ints | None = None) -> tuple[str, float]:
    """Return the test of a difference of accuracies, and its p.

    Args:
        a: [seeds, templates, n], whether A's runs are right.
        b: likewise, of the same images; the numbers of seeds and templates may be others.
        clusters: int64 [n], images that belong together; None: each by itself.
    """
    if _are_two_runs(a, b, clusters):
        return "mcnemar", float(mcnemar(*_won(a, b)))
    return "permutation", permutation_p(b.mean(axis=(0, 1)) - a.mean(axis=(0, 1)), clusters)


def interval_of(a: Floats, b: Floats, clusters: Ints | None = None) -> tuple[float, float]:
    """Return the 95 % interval of the difference.

    Of the accuracies of two runs it is Tango's; else it is of the crossed bootstrap, over seeds and
    templates too where both have the same number of them. The arguments are those of `differ`, or
    the values of another metric.
    """
    if _are_two_runs(a, b, clusters):
        return difference_interval(*_won(a, b), a.shape[2])
    return _interval(_paired(a, b), clusters)


def equality_p(a: Floats, b: Floats, margin: float, clusters: Ints | None = None) -> float:
    """Return the p of the test that the difference is not within ± the margin.

    Two one-sided tests (Schuirmann 1987): below 0.05, the difference is within the margin. Of the
    accuracies of two runs they are score tests of the paired difference, else z tests with the
    bootstrap's standard error.
    """
    from scipy.special import ndtr

    if _are_two_runs(a, b, clusters):
        wins, losses = _won(a, b)
        n = a.shape[2]
        low = score_statistic(wins, losses, n, -margin)
        high = score_statistic(wins, losses, n, margin)
    else:
        each = _paired(a, b)
        error = max(float(resampled_means(each, clusters).std()), _least_error(each))
        low, high = (float(each.mean()) + margin) / error, (float(each.mean()) - margin) / error
    return float(max(ndtr(-low), ndtr(high)))


def compare_all(
    methods: Sequence[Answers],
    labels: Ints,
    metric: Metric = "accuracy",
    margin: float | None = None,
    clusters: Ints | None = None,
) -> list[Difference]:
    """Return every method's difference from every one before it, not corrected yet.

    Args:
        methods: what each said of the same images.
        labels: int64 [n], their true classes.
        metric: what differs.
        margin: differences below it count as nothing; None: equality is not tested.
        clusters: int64 [n], images that belong together; None: each by itself.
    """
    known = [one.values(metric, labels) for one in methods]
    found = []
    for place, (of_b, b) in enumerate(zip(methods, known, strict=True)):
        for of_a, a in zip(methods[:place], known, strict=False):
            if metric == "accuracy":
                test, p = differ(a, b, clusters)
            else:
                members = (of_a.members, of_b.members)
                test, p = "permutation", exchange_p(metric, labels, *members, clusters)
            given = {}
            if margin is not None:
                given = {"margin": margin, "p_equal": equality_p(a, b, margin, clusters)}
            found.append(
                Difference(
                    a=of_a.name,
                    b=of_b.name,
                    n=len(labels),
                    runs=(of_a.runs, of_b.runs),
                    difference=float(b.mean() - a.mean()),
                    interval=interval_of(a, b, clusters),
                    test=test,
                    p=p,
                    p_holm=p,
                    different=p < ALPHA,
                    **given,
                )
            )
    return found


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """Return the differences with their p corrected for all of them (Holm)."""
    p = holm([one.p for one in found])
    tested = [place for place, one in enumerate(found) if one.p_equal is not None]
    equal = dict(zip(tested, holm([found[t].p_equal or 0.0 for t in tested]), strict=True))
    changed = []
    for place, one in enumerate(found):
        update: dict[str, float | bool] = {
            "p_holm": float(p[place]),
            "different": bool(p[place] < ALPHA),
        }
        if place in equal:
            update |= {"p_equal": float(equal[place]), "equal": bool(equal[place] < ALPHA)}
        changed.append(one.model_copy(update=update))
    return changed


def _are_two_runs(a: Floats, b: Floats, clusters: Ints | None) -> bool:
    """Tell whether these are the answers of one run each, images by themselves."""
    return clusters is None and are_answers(a) and are_answers(b)


def _interval(each: Floats, clusters: Ints | None) -> tuple[float, float]:
    """Return the bootstrap's interval, and none narrower than so many images can have."""
    low, high = np.quantile(resampled_means(each, clusters), [0.025, 0.975])
    mean, reach = float(each.mean()), Z95 * _least_error(each)
    return min(float(low), mean - reach), max(float(high), mean + reach)


def _won(a: Floats, b: Floats) -> tuple[int, int]:
    """Return how many images B alone has right, and how many A alone."""
    right_a, right_b = a[0, 0] > 0.5, b[0, 0] > 0.5
    return int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())


def _least_error(each: Floats) -> float:
    """Return the least standard error that so many images can have: no difference seen is not none.

    Agresti & Min (Statistics in Medicine 24, 2005) add half an image to each case of a pair.
    """
    of_image = each.mean(axis=(0, 1))
    n = len(of_image) + 2
    variance = (float((of_image**2).sum()) + 1) / n - (float(of_image.sum()) / n) ** 2
    return float(np.sqrt(variance / n))


def _paired(a: Floats, b: Floats) -> Floats:
    """Return B less A, run by run where both have as many, and else of the means."""
    if a.shape == b.shape:
        return np.asarray(b - a)
    return np.asarray(b.mean(axis=(0, 1), keepdims=True) - a.mean(axis=(0, 1), keepdims=True))
