"""Many comparisons on the same images: tests, their correction, and what may be called equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.stats.crossed import resampled_means
from bench.stats.paired import ALPHA, Z95, difference_interval, mcnemar, score_statistic
from bench.store.fields import Document, Number, Positive, Share

PERMUTATIONS = 20_000

Floats = NDArray[np.float64]


class Difference(Document):
    """One method less another, on the same images."""

    a: str
    b: str
    """The methods, as tables call them; the difference is B less A."""
    n: Positive
    """Images that all runs of both have."""
    runs: tuple[Positive, Positive]
    """Of A, and of B."""
    difference: Number
    interval: tuple[Number, Number]
    """95 %, of this difference alone."""
    test: str
    """`mcnemar` of two runs, or `permutation` of the means over several."""
    p: Share
    p_holm: Share
    """Corrected for all differences that are shown with it."""
    different: bool
    """Corrected p below 0.05."""
    margin: Share | None = None
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


def permutation_p(differences: Floats, seed: int = 0) -> float:
    """Return the two-sided p of a paired permutation test that the mean difference is 0.

    Under the null each image's two values may be exchanged, so its difference may have either sign.
    Images with the same difference are counted and not drawn one by one.

    Args:
        differences: [n], of each image; for another metric than accuracy, its share of it.
        seed: of the permutations.
    """
    size, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(size):
        return 1.0
    rng = np.random.default_rng(seed)
    signs = 2 * rng.binomial(counts, 0.5, size=(PERMUTATIONS, len(counts))) - counts
    reached = np.abs(signs @ size) >= abs(differences.sum()) * (1 - 1e-9)
    return float((1 + reached.sum()) / (1 + PERMUTATIONS))


def differ(a: Floats, b: Floats, weights: Floats | None = None) -> tuple[str, float]:
    """Return the test of a difference, and its p.

    Args:
        a: [seeds, templates, n], whether A's runs are right.
        b: likewise, of the same images; the numbers of seeds and templates may be others.
        weights: [n], what an image counts, 1 on average; None: all alike.
    """
    if a.shape[:2] == b.shape[:2] == (1, 1) and weights is None:
        wins, losses = _won(a, b)
        return "mcnemar", float(mcnemar(wins, losses))
    each = b.mean(axis=(0, 1)) - a.mean(axis=(0, 1))
    return "permutation", permutation_p(each if weights is None else each * weights)


def interval_of(
    a: Floats,
    b: Floats,
    weights: Floats | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> tuple[float, float]:
    """Return the 95 % interval of the difference.

    Of two runs it is Tango's; of several it is of the crossed bootstrap, over seeds and templates
    too where both have the same number of them. The arguments are those of `compare_all`.
    """
    if a.shape[:2] == b.shape[:2] == (1, 1) and weights is None and clusters is None:
        return difference_interval(*_won(a, b), a.shape[2])
    if weights is not None:
        a, b = a * weights, b * weights
    each = _paired(a, b)
    low, high = np.quantile(resampled_means(each, clusters), [0.025, 0.975])
    mean, reach = float(each.mean()), Z95 * _least_error(each)
    return min(float(low), mean - reach), max(float(high), mean + reach)


def equality_p(a: Floats, b: Floats, margin: float) -> float:
    """Return the p of the test that the difference is not within ± the margin.

    Two one-sided tests (Schuirmann 1987): below 0.05, the difference is within the margin. Of two
    runs they are score tests of the paired difference, of several z tests with the bootstrap's
    standard error.
    """
    from scipy.special import ndtr

    if a.shape[:2] == b.shape[:2] == (1, 1):
        wins, losses = _won(a, b)
        n = a.shape[2]
        low = score_statistic(wins, losses, n, -margin)
        high = score_statistic(wins, losses, n, margin)
    else:
        each = _paired(a, b)
        error = max(float(resampled_means(each).std()), _least_error(each))
        low, high = (float(each.mean()) + margin) / error, (float(each.mean()) - margin) / error
    return float(max(ndtr(-low), ndtr(high)))


def compare_all(
    right: Sequence[tuple[str, Floats]],
    margin: float | None = None,
    weights: Floats | None = None,
    clusters: NDArray[np.int64] | None = None,
) -> list[Difference]:
    """Return every method's difference from every one before it, not corrected yet.

    Args:
        right: of each method its name, and [seeds, templates, n] on the same images.
        margin: differences below it count as nothing; None: equality is not tested.
        weights: [n], what an image counts, 1 on average; None: all alike.
        clusters: int64 [n], images that are drawn together.
    """
    found = []
    for place, (name_b, b) in enumerate(right):
        for name_a, a in right[:place]:
            test, p = differ(a, b, weights)
            each = b.mean(axis=(0, 1)) - a.mean(axis=(0, 1))
            given = {}
            if margin is not None and weights is None:
                given = {"margin": margin, "p_equal": equality_p(a, b, margin)}
            found.append(
                Difference(
                    a=name_a,
                    b=name_b,
                    n=a.shape[2],
                    runs=(a.shape[0] * a.shape[1], b.shape[0] * b.shape[1]),
                    difference=float((each if weights is None else each * weights).mean()),
                    interval=interval_of(a, b, weights, clusters),
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
