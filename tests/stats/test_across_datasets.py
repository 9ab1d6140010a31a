"""Mean ranks over datasets, and robustness beyond what the usual data foretells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from bench.stats.many import mean_ranks, robustness


def test_critical_differences_are_the_published_ones() -> None:
    """Demšar (2006), section 3.2.2: four methods on 14 datasets, CD = 1.25."""
    accuracy = np.random.default_rng(0).random((14, 4))
    found = mean_ranks(["a", "b", "c", "d"], accuracy)
    assert found is not None
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    assert sum(found.ranks) == pytest.approx(10)


def test_ranks_need_ten_datasets_and_join_what_does_not_differ() -> None:
    rng = np.random.default_rng(1)
    accuracy = np.array([0.9, 0.9, 0.5, 0.5]) + 0.01 * rng.random((20, 4))
    assert mean_ranks(list("abcd"), accuracy[:9]) is None
    found = mean_ranks(list("abcd"), accuracy)
    assert found is not None and found.friedman_p < 1e-6
    joined = [{found.methods[p] for p in range(i, j + 1)} for i, j in found.cliques]
    assert joined == [{"a", "b"}, {"c", "d"}]


def test_effective_robustness_is_what_lies_beyond_the_line() -> None:
    before = expit(np.array([0.0, 0.5, 1.0, 1.5, 2.0]))
    after = expit(0.8 * np.array([0.0, 0.5, 1.0, 1.5, 2.0]) - 0.7)
    after[4] += 0.1
    found = robustness(list("abcde"), "usual", "shifted", before, after)
    assert found[4].effective == pytest.approx(0.1)
    assert robustness(["a"], "u", "s", before[:1], after[:1])[0].effective is None
