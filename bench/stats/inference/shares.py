"""Proportions with confidence intervals: accuracy of a run, of its groups, and scores of items."""

from dataclasses import dataclass, replace
from math import hypot
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.libraries import special
from bench.stats.inference.paired import Z95
from bench.stats.inference.score import mean_score
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import Items
from bench.store.summary import Group, WorstGroup


def accuracy_interval(correct: float, n: float) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of `correct` out of `n`; see `wilson`."""
    low, high = wilson(np.array([correct]), np.array([n]))
    return float(low[0]), float(high[0])


def wilson(correct: Ints | Floats, n: Ints | Floats) -> tuple[Floats, Floats]:
    """Return the lower and upper ends of 95 % score intervals (Wilson 1927), float64 [C] each.

    For a weighted mean, `n` are effective sample sizes, and `correct` is the mean times these.
    `scipy.stats.binomtest` gives the same, but takes 0.5 ms per interval.
    """
    share = correct / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    reach = Z95 / (1 + Z95**2 / n) * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    low = np.where(correct == 0, 0.0, centre - reach)
    high = np.where(correct == n, 1.0, centre + reach)
    return low, high


def mean_interval(values: Bools | Floats, clusters: Ints | None = None) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values in [0, 1], one per image.

    It is Wilson's if each value is 0 or 1 and images are independent, and otherwise that of a score
    test. Images of a cluster, int64 [n], are sampled together: if all are right or all are wrong,
    there are as many independent answers as clusters.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, n = float(values.mean()), len(values)
    if clusters is not None and (mean <= 0 or mean >= 1):
        n = len(np.unique(clusters))
    elif clusters is not None or not np.isin(values, (0, 1)).all():
        return mean_score(values, clusters, (0.0, 1.0)).interval()
    return accuracy_interval(round(mean * n), n)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    interval: tuple[float, float]

    def __neg__(self) -> Self:
        low, high = self.interval
        return replace(self, value=-self.value, interval=(-high, -low))

    def __sub__(self, other: Self) -> Self:
        """Return the difference of two estimates from different images.

        Its interval follows from theirs (Zou & Donner, Statistics in Medicine 27, 2008). With the
        Wilson intervals of two proportions, it is Newcombe's (ibid. 17, 1998).
        """
        (low, high), (other_low, other_high) = self.interval, other.interval
        difference = self.value - other.value
        below = hypot(self.value - low, other_high - other.value)
        above = hypot(high - self.value, other.value - other_low)
        interval = difference - below, difference + above
        return replace(self, value=difference, interval=interval)


def exact_interval(count: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of `count` out of `n` (Clopper & Pearson, 1934)."""
    low, high = exact_bounds(np.array([count]), np.array([n]), 0.025)
    return float(low[0]), float(high[0])


def exact_bounds(counts: Floats | Ints, n: Floats | Ints, tail: float) -> tuple[Floats, Floats]:
    """Return exact lower and upper bounds of shares, each missed with at most `tail`, float64 [C].

    Where `counts` are means of several runs, or `n` effective numbers (`independent`), the bounds
    are those of a single run, interpolated.
    """
    low = special.betaincinv(np.maximum(counts, 1e-9), n - counts + 1, tail)
    high = special.betaincinv(counts + 1, np.maximum(n - counts, 1e-9), 1 - tail)
    return np.where(counts <= 0, 0.0, low), np.where(counts >= n, 1.0, high)


def pair_scores(decided: Decisions, items: Items) -> dict[str, Any]:
    """Return the text, image and group scores of items with several images, by metric name.

    The text score, the share of items in which every image gets its own text, equals the accuracy.
    Ties and failed items count as wrong. Image and group scores are omitted if the strategy does
    not compare scores of different images. Items without an image score, such as those that ask
    which image fits one text, have no scores.
    """
    if items.image_chance is None:
        return {}
    scores: dict[str, Any] = {"text_score": float(decided.correct.mean())}
    if not items.images_compared:
        return scores
    for kind, right, chance in (
        ("image", decided.image_right, items.image_chance),
        ("group", decided.group_right, items.group_chance),
    ):
        values = np.zeros(len(decided), dtype=bool) if right is None else right
        scores[f"{kind}_score"] = float(values.mean())
        scores[f"{kind}_score_ci95"] = mean_interval(values, decided.clusters)
        scores[f"{kind}_chance"] = chance
    return scores


def per_group(
    names: NDArray[np.str_] | None, right: Bools | Floats, clusters: Ints | None = None
) -> list[Group]:
    """Return the accuracy of each group, worst first; images with an empty name are in none.

    `names` are the images' groups, str [n], and `right` whether, or how often, each image is right.
    `clusters`, int64 [n], are the images that items are about; None if these are independent.
    """
    groups = []
    for name, rows in _rows_of_groups(names):
        of_group, units = right[rows], None if clusters is None else clusters[rows]
        ends = mean_interval(of_group, units)
        mean = float(of_group.mean())
        groups.append(Group(group=name, n=len(of_group), accuracy=mean, accuracy_ci95=ends))
    return sorted(groups, key=lambda group: group.accuracy)


def _rows_of_groups(names: NDArray[np.str_] | None) -> list[tuple[str, Ints]]:
    if names is None:
        return []
    return [(name, np.flatnonzero(names == name)) for name in sorted(set(names.tolist()) - {""})]


def worst_group(
    names: NDArray[np.str_] | None, right: Bools | Floats, clusters: Ints | None = None
) -> WorstGroup | None:
    """Return the first group of `per_group`, with an interval of the lowest accuracy of all.

    A single group was not chosen, so that this interval is its own.
    """
    groups = per_group(names, right, clusters)
    if not groups:
        return None
    ends = groups[0].accuracy_ci95
    if len(groups) > 1:
        of_group = dict(_rows_of_groups(names))
        sizes = np.array(
            [
                float(group.n) if clusters is None else independent(clusters[of_group[group.group]])
                for group in groups
            ]
        )
        counts = np.array([group.accuracy for group in groups]) * sizes
        ends = lowest_interval(counts, sizes)
    return WorstGroup(**dict(groups[0]), groups=len(groups), lowest_ci95=ends)


def independent(clusters: Ints) -> float:
    """Return how many independent items tell as much, if those of a cluster are answered alike.

    It is n² / Σ m² of clusters of m items (Kish, Survey Sampling, 1965), the least possible number
    unless items of a cluster are answered in opposite ways.
    """
    _, sizes = np.unique(clusters, return_counts=True)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def lowest_interval(counts: Floats | Ints, n: Floats | Ints) -> tuple[float, float]:
    """Return the 95 % interval of the lowest of G shares, `counts` out of `n`.

    The lower end is the smallest of their exact lower bounds at 2.5 %, so at most the bound of the
    group that is truly lowest. The upper end is the smallest of their exact upper bounds at
    2.5 % / G, which all hold together. An interval of the smallest observed share alone would
    forget that it was chosen as the smallest.
    """
    lower, _ = exact_bounds(counts, n, 0.025)
    _, upper = exact_bounds(counts, n, 0.025 / len(n))
    return float(lower.min()), float(upper.min())
