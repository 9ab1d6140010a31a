"""Many comparisons on the same images: tests, their correction, and what may be called equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.contracts.metrics import METRICS
from bench.stats.class_metrics import image_values
from bench.stats.crossed import Over
from bench.stats.difference_tests import (
    compare_by_exchange,
    compare_over_images,
    compare_over_seeds,
)
from bench.stats.paired import ALPHA
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

    def values(self, metric: str, labels: Ints) -> Floats:
        """Return the values of each image whose mean is the metric, [seeds, templates, n].

        Of a group they are the mean over its members, [1, 1, n].
        """
        if len(self.members) == 1:
            return image_values(metric, labels, self.members[0])
        return np.asarray(self.of_members(metric, labels).mean(axis=0, keepdims=True))

    def of_members(self, metric: str, labels: Ints) -> Floats:
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
    """`mcnemar` of two runs, `permutation` of the means over several; `seeds`: over seeds too."""
    p: Share
    """Two-sided, of this difference alone; at most 0.05 where the interval excludes 0."""
    p_holm: Share
    """Corrected for all differences that are shown with it."""
    different: bool
    """Corrected p of 0.05 or less."""
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


def compare_all(
    methods: Sequence[Answers],
    labels: Ints,
    metric: str = "accuracy",
    margin: float | None = None,
    clusters: Ints | None = None,
    over: Over = "images",
) -> list[Difference]:
    """Return every method's difference from every one before it, not corrected yet.

    Args:
        methods: what each said of the same images; over seeds, with the same seeds.
        labels: int64 [n], their true classes.
        metric: what differs.
        margin: differences below it count as nothing; None: equality is not tested.
        clusters: int64 [n], images that belong together; None: each by itself.
        over: what the tests and intervals are over.
    """
    values = [one.values(metric, labels) for one in methods]
    differences = []
    for (of_a, a), (of_b, b) in combinations(zip(methods, values, strict=True), 2):
        if over == "seeds":
            tested = compare_over_seeds(a, b, margin, clusters)
        elif METRICS[metric].mean_over_images:
            tested = compare_over_images(a, b, margin, clusters)
        else:
            members = of_a.members, of_b.members
            tested = compare_by_exchange(metric, labels, *members, margin, clusters)
        differences.append(
            Difference(
                a=of_a.name,
                b=of_b.name,
                n=len(labels),
                runs=(of_a.runs, of_b.runs),
                difference=float(b.mean() - a.mean()),
                interval=(max(-1.0, tested.interval[0]), min(1.0, tested.interval[1])),
                test=tested.test,
                p=tested.p,
                p_holm=tested.p,
                different=tested.p <= ALPHA,
                margin=margin,
                p_equal=tested.p_equal,
            )
        )
    return differences


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """Return the differences with their p corrected for all of them (Holm)."""
    p = holm([one.p for one in found])
    tested = [place for place, one in enumerate(found) if one.p_equal is not None]
    equal = dict(zip(tested, holm([found[t].p_equal or 0.0 for t in tested]), strict=True))
    changed = []
    for place, one in enumerate(found):
        update: dict[str, float | bool] = {
            "p_holm": float(p[place]),
            "different": bool(p[place] <= ALPHA),
        }
        if place in equal:
            update |= {"p_equal": float(equal[place]), "equal": bool(equal[place] < ALPHA)}
        changed.append(one.model_copy(update=update))
    return changed


def ranking(compared: str, pairs: int | None = None) -> str:
    """Return the rule of a rank, as every table explains it.

    Args:
        compared: `runs` or `methods`.
        pairs: how many were tested; None: all those that are ranked together.
    """
    many = "all pairs ranked together" if pairs is None else f"all {pairs} differences"
    many = "the one difference" if pairs == 1 else many
    return (
        f"A rank is one more than the number of {compared} that are significantly better (5 %,"
        f" corrected for {many} by Holm). {compared.capitalize()} of one rank, or with intervals"
        " that overlap, are not shown to be equal."
    )


def ranks(better: NDArray[np.bool_]) -> list[int | None]:
    """Return the rank of each: one more than those that are significantly better; alone, none.

    Args:
        better: bool [R, R], whether the i-th is significantly better than the j-th, with p
            corrected for all pairs that are compared.
    """
    return [None] if len(better) == 1 else [1 + int(ahead) for ahead in better.sum(axis=0)]
