"""Scores of probabilities: by hand, of a constant, and of exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.matrix import matrix

from bench.contracts.strategy import Bools, Floats
from bench.stats.probability import Probability, coverage_area, equal_mass, skill


def scored(probability: Floats, right: Bools) -> Probability:
    return skill(probability, right, "run", 100)


def drawn(n: int, seed: int = 0) -> tuple[Floats, Bools]:
    """Return exact probabilities, and outcomes drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.beta(4, 1, size=n)
    return p, rng.random(n) < p


def test_scores_by_hand() -> None:
    found = scored(np.array([0.9, 0.8, 0.4]), np.array([True, True, False]))
    assert found.brier == pytest.approx((0.01 + 0.04 + 0.16) / 3)
    assert found.brier_skill == pytest.approx(1 - 0.07 / (2 / 9))
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.8, 0.6]).mean())
    assert found.coverage_area == pytest.approx((1 + 1 + 2 / 3) / 3)


@pytest.mark.parametrize("value", [0.8, 0.99])
def test_a_constant_does_not_look_calibrated(value: float) -> None:
    right = np.arange(200) % 5 > 0  # 80 %
    found = scored(np.full(200, value), right)
    assert found.ece is None and found.ece_ci95 is None
    assert found.brier_skill is not None and found.brier_skill <= 1e-12
    assert found.log_loss_skill is not None and found.log_loss_skill <= 1e-12
    assert found.coverage_area == pytest.approx(0.8)
    assert [point.accuracy for point in found.coverage] == pytest.approx([0.8] * 20)


def test_two_values_that_rank_nothing_have_no_skill() -> None:
    right = np.arange(400) % 5 > 0
    found = scored(np.where(np.arange(400) < 200, 0.8, 0.8 + 1e-6), right)
    assert found.brier_skill == pytest.approx(0, abs=1e-6)
    assert found.coverage_area == pytest.approx(0.8)


def test_exact_probabilities_have_skill_and_their_error_is_that_of_chance() -> None:
    found = scored(*drawn(20_000))
    assert found.brier_skill is not None and found.brier_skill > 0.1
    assert found.ece is not None and found.ece_if_calibrated is not None
    assert found.ece == pytest.approx(found.ece_if_calibrated, rel=0.8)
    assert found.coverage_area > found.accuracy + 0.1


@pytest.mark.parametrize(
    ("n", "shift"), matrix([(200, 0.0), (200, 0.15), (2000, 0.05)], [(200, 0.0), (2000, 0.05)])
)
def test_the_interval_covers_the_true_error(n: int, shift: float) -> None:
    """Outcomes are right with probability p - shift where p is said, so the error is the shift."""
    covered, runs = 0, 80
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.4, 1.0, size=n)
        found = scored(p, rng.random(n) < p - shift)
        assert found.ece_ci95 is not None
        covered += found.ece_ci95[0] <= shift <= found.ece_ci95[1]
    assert covered / runs > 0.88


def test_equal_values_share_a_bin() -> None:
    values = np.repeat([0.2, 0.5, 0.9], [15, 70, 15])
    groups = equal_mass(values)
    assert sorted(np.concatenate(groups).tolist()) == list(range(100))
    assert [sorted(set(values[g].tolist())) for g in groups] == [[0.2], [0.5], [0.9]]


def test_the_order_of_ties_does_not_count() -> None:
    right = np.array([True, False, True, False])
    assert coverage_area(np.full(4, 0.5), right) == coverage_area(np.full(4, 0.5), right[::-1])
    assert coverage_area(np.full(4, 0.5), right) == pytest.approx(0.5)
