"""Many comparisons: against scipy, by definition, and by how often simulated studies err."""

from __future__ import annotations

import numpy as np
from helpers.scores import two_methods

from bench.contracts.strategy import Floats
from bench.discovery.loading import metric_specs
from bench.stats.difference_tests import (
    Answers,
    MethodDifference,
    corrected,
    holm,
    ranks,
)
from bench.stats.difference_tests import (
    compare_all as all_differences,
)


def test_holm_rejects_step_by_step() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(7) ** 2
        adjusted = holm(p)
        for alpha in (0.01, 0.05, 0.2, 0.6):
            rejected = np.zeros(7, bool)
            for step, place in enumerate(np.argsort(p)):
                if p[place] * (7 - step) > alpha:
                    break
                rejected[place] = True
            assert ((adjusted <= alpha) == rejected).all()
    assert holm([]).size == 0


def compare_all(a: Floats, b: Floats, margin: float | None = None) -> list[MethodDifference]:
    """Compare two methods of which is known which images they have right."""
    labels = np.zeros(a.shape[2], dtype=np.int64)
    methods = [right_answers("a", a), right_answers("b", b)]
    return all_differences(methods, labels, metric_specs()["accuracy"], margin)


def right_answers(name: str, right: Floats) -> Answers:
    """Return answers of which is known which are right."""
    return Answers(name, (right < 0.5).astype(np.int64), right)


def test_what_is_not_different_is_not_equal_for_that() -> None:
    a, b = two_methods(np.random.default_rng(4), 0.0, 30)
    found = corrected(compare_all(a, b, margin=0.02))[0]
    assert not found.different and not found.equal and found.p_equal_holm is not None


def test_a_rank_is_a_range_and_one_alone_has_none() -> None:
    better = np.zeros((3, 3), dtype=bool)
    better[0, 2] = True
    assert ranks(better) == [(1, 2), (1, 3), (2, 3)]
    assert ranks(better[:1, :1]) == [None] and ranks(better[:0, :0]) == []
