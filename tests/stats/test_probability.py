"""The probability that a decision is right: fitted, tried on other images, and its skill."""

import numpy as np
import pytest
from helpers.matrix import matrix
from helpers.runs import a_record

from bench.contracts.strategy import Bools, Floats
from bench.stats.calibration.probability import (
    Probability,
    coverage_area,
    equal_mass,
    fit_probability,
    held_out_skill,
    probabilities,
    skill,
)
from bench.store.formats.decisions import Decisions, as_decisions


def decided(n: int, seed: int, telling: bool = True) -> Decisions:
    """Return decisions that are right the more often, the larger their margin is."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(n):
        margin = float(rng.exponential(0.01))
        p = margin / (margin + 0.004) if telling else 0.7
        wrong = rng.random() > p
        evaluations = int(rng.integers(40, 400))
        found = {"margin": margin, "evaluations": evaluations}
        records.append(a_record(f"{seed}-{number}", 0, int(wrong), **found))
    return as_decisions(records)


def test_it_says_of_new_images_which_are_right() -> None:
    fit, test = fit_probability(decided(300, 0)), decided(2000, 1)
    assert fit is not None and fit.images == 300
    found = skill(probabilities(fit, test), test.correct, "run", fit.images)
    assert found.brier_skill is not None and found.brier_skill > 0.1
    assert found.ece is not None and found.ece < 0.07


def test_margins_that_tell_nothing_give_no_skill() -> None:
    fit, test = fit_probability(decided(300, 0, telling=False)), decided(2000, 1, telling=False)
    assert fit is not None
    found = skill(probabilities(fit, test), test.correct, "run", fit.images)
    assert found.brier_skill is not None and abs(found.brier_skill) < 0.03


def test_the_skill_on_held_out_images_is_that_on_new_ones() -> None:
    telling, silent = decided(300, 0), decided(300, 0, telling=False)
    held_out, fit, test = held_out_skill(telling), fit_probability(telling), decided(2000, 1)
    assert fit is not None and held_out is not None
    new = skill(probabilities(fit, test), test.correct, "run", fit.images).log_loss_skill
    assert new is not None and held_out > 0.1 and abs(held_out - new) < 0.1
    of_silent = held_out_skill(silent)
    assert of_silent is not None and of_silent < 0.01
    assert held_out_skill(decided(8, 0)) is None


def test_what_cannot_be_fitted_is_not() -> None:
    same = [a_record(str(n), 0, int(n % 2)) for n in range(40)]  # one margin, one cost
    assert fit_probability(as_decisions(same)) is None
    right = [a_record(str(n), 0, 0, margin=0.01 * (n + 1)) for n in range(40)]
    assert fit_probability(as_decisions(right)) is None


def test_a_decision_of_one_pass_has_a_probability() -> None:
    """One of no pass has none, and neither has an image that failed."""
    fit = fit_probability(decided(300, 0))
    assert fit is not None
    records = [a_record(str(passes), 0, 0, evaluations=passes) for passes in (1, 0)]
    once = as_decisions([*records, a_record("failed", 0, None)])
    assert np.isfinite(probabilities(fit, once)).tolist() == [True, False, False]


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
    ("n", "shift"), matrix([(200, 0.0), (200, 0.15), (2000, 0.05)], [(200, 0.0)])
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
