"""`paired-ttest` equals the published algorithm with scipy's test."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.tables import Errors, concluded, make, make_table, run
from scipy.stats import ttest_rel

from bench.contracts.strategy import Ints
from bench_plugins.strategies.elimination import shuffle_draws


def clark_and_jaini(errors: Errors, order: Ints, min_scores: int, cutoff: float) -> tuple[int, int]:
    """Their algorithm 1 with SciPy's test."""
    alive = list(range(len(errors)))
    evaluations = 0
    for n in range(1, len(order) + 1):
        evaluations += len(alive)
        if n < min(min_scores, len(order)):
            continue
        seen = errors[:, order[:n]].astype(float)
        best = min(alive, key=lambda p: (seen[p].mean(), p))
        alive = [
            p for p in alive if p == best or not ttest_rel(seen[p], seen[best]).pvalue < cutoff
        ]
        if len(alive) == 1:
            break
    return min(alive, key=lambda p: (seen[p].mean(), p)), evaluations


@pytest.mark.parametrize(("min_scores", "cutoff"), [(20, 2e-3), (5, 0.05), (100, 2e-3)])
def test_equals_the_algorithm_with_scipys_test(min_scores: int, cutoff: float) -> None:
    strategy = make("paired-ttest", 60, min_scores=min_scores, cutoff=cutoff)
    for seed in range(8):
        errors = make_table(6, 60, seed=seed, gap=0.004)
        decided = run(strategy, errors)
        expected = clark_and_jaini(errors, shuffle_draws(60, 0), min_scores, cutoff)
        assert (concluded(decided).ranking[0], decided.evaluations) == expected


def test_identical_prompts_are_never_told_apart() -> None:
    errors = make_table(4, 60, gap=0.1)
    errors = np.concatenate([errors, errors])
    decided = run(make("paired-ttest", 60), errors)
    assert concluded(decided).ranking[0] == errors[:4].mean(axis=1).argmin()
    assert sorted(concluded(decided).draws)[-2:] == [60, 60]


def test_a_constant_difference_is_told_apart_at_once() -> None:
    errors = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (2, 1))
    errors[1] += 0.5
    assert run(make("paired-ttest", 64), errors).evaluations == 40
