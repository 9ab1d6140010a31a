"""How far a screen reaches, and how often what is beyond wins."""

from __future__ import annotations

import numpy as np

from bench.stats.risk import conformal_quantile, distances


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
