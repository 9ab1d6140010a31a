"""Comparison of many methods: pairwise tests and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats, Ints
from bench.stats.crossed import Over
from bench.stats.difference_tests import Answers, difference_test
from bench.stats.paired import ALPHA, Difference
from bench.store.fields import Document, Positive, Share


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
    largest, differences = metric.range[1] - metric.range[0], []
    for a, b in combinations(methods, 2):
        tested = difference_test(metric, labels, a, b, margin, clusters, over)
        low, high = tested.interval
        within = max(-largest, low), min(largest, high)
        tested = tested.model_copy(update={"interval": within})
        differences.append(
            MethodDifference(
                a=a.name,
                b=b.name,
                runs=(a.runs, b.runs),
                difference=tested,
                margin=margin,
            )
        )
    return differences


def corrected(differences: Sequence[MethodDifference]) -> list[MethodDifference]:
    """Return the differences with p-values corrected for all of them by Holm's method.

    Tests of difference and tests of equality are two separate families.
    """
    tested = [pair.difference for pair in differences]
    families = _corrected([d.p for d in tested]), _corrected([d.p_equal for d in tested])
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


def _corrected(values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected by `holm`; None, where nothing was tested, stays."""
    tested = iter(holm([p for p in values if p is not None]).tolist())
    return [None if p is None else next(tested) for p in values]


def ranking(compared: str, pairs: int | None = None) -> str:
    """Return a sentence that explains the ranks of `compared`, a plural such as "methods".

    `pairs` is the number of tests; None for all pairs.
    """
    tested = "all pairs ranked together" if pairs is None else f"all {pairs} differences"
    tested = "the one difference" if pairs == 1 else tested
    return (
        f"A rank is a range: from 1 + the {compared} that are significantly better, to the number"
        f" of {compared} − those that are significantly worse (5 %, Holm over {tested})."
    )


Rank = tuple[Positive, Positive]
"""Range of the places that a method may have, the best first."""


def ranks(better: NDArray[np.bool_]) -> list[Rank | None]:
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


def rank_text(rank: Rank | None) -> str:
    """Return a rank as tables show it, such as `1–3`, or a dash."""
    return "–" if rank is None else "–".join(map(str, dict.fromkeys(rank)))
