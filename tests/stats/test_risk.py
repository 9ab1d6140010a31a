"""Bounds: what a risk needs, and conformal quantiles of first-order scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.stats.risk import (
    conformal_quantile,
    distances,
    images_needed,
    keeps,
    passing,
    upper_limit,
)


@pytest.mark.parametrize(
    ("risk", "disagreements", "n"), [(0.01, 0, 299), (0.02, 0, 149), (0.05, 0, 59), (0.05, 1, 93)]
)
def test_how_many_images_are_needed(risk: float, disagreements: int, n: int) -> None:
    assert images_needed(risk, disagreements) == n
    assert keeps(disagreements, n, risk) and not keeps(disagreements, n - 1, risk)


def test_the_upper_limit_is_that_of_clopper_and_pearson() -> None:
    known = binomtest(3, 168, alternative="less").proportion_ci(0.95, method="exact")
    assert upper_limit(3, 168) == pytest.approx(known.high)
    assert upper_limit(5, 5) == 1
    for risk in (upper_limit(3, 168) - 1e-6, upper_limit(3, 168) + 1e-6):
        assert keeps(3, 168, risk) == (risk > upper_limit(3, 168))


def test_a_setting_behind_the_first_failure_is_never_chosen() -> None:
    assert passing([0, 0, 9, 0], 149, 0.02) == [0, 1]
    assert passing([1, 0], 149, 0.02) == []
    assert passing([], 149, 0.02) == []


@pytest.mark.parametrize("shares", [(0.0, 0.01, 0.021, 0.03), (0.0005, 0.0205, 0.0205, 0.0205)])
def test_the_risk_is_kept_although_the_cheapest_is_chosen(shares: tuple[float, ...]) -> None:
    """Of 1,500 calibrations, at most 5 % choose a setting whose true share exceeds the risk.

    Half of the disagreements of a setting are on the same images as those of the one before it.
    """
    rng, n, risk, runs = np.random.default_rng(0), 400, 0.02, 1500
    differs = np.zeros((runs, n), dtype=bool)
    counts = []
    for share in shares:
        kept = differs & (rng.random((runs, n)) < 0.5)
        rest = (share - kept.mean()) / (1 - kept.mean())
        differs = kept | (rng.random((runs, n)) < rest)
        counts.append(differs.sum(axis=1))
    chosen = [passing(row, n, risk) for row in np.stack(counts, axis=1).tolist()]
    broken = np.mean([any(shares[place] > risk for place in found) for found in chosen])
    assert 0.002 < broken < 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    safe = np.mean([len(found) > 0 for found in chosen])
    assert safe > 0.9


def test_distances_have_the_unit_of_the_scores() -> None:
    scores = np.array([3.0, 1.0, 2.0])
    np.testing.assert_allclose(distances(5 * scores + 7), distances(scores))
    np.testing.assert_allclose(distances(scores), np.array([2, 0, 1]) / scores.std())
    np.testing.assert_array_equal(distances(np.ones(3)), np.zeros(3))


def test_conformal_quantile_is_exceeded_as_rarely_as_stated() -> None:
    rng = np.random.default_rng(0)
    for n, risk in ((19, 0.1), (60, 0.05), (200, 0.02)):
        exceeded = [
            rng.exponential() > conformal_quantile(rng.exponential(size=n), risk)
            for _ in range(4000)
        ]
        assert 0.6 * risk < np.mean(exceeded) < 1.25 * risk
    assert conformal_quantile(np.arange(18.0), 0.05) == np.inf
    assert conformal_quantile(np.arange(19.0), 0.05) == 18
