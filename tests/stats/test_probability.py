"""The probability that a decision is right, fitted on some images and tried on others."""

from __future__ import annotations

import numpy as np
from helpers.runs import a_record

from bench.stats.probability import fit_probability, held_out_skill, probabilities, skill
from bench.store.decisions import Decisions, as_decisions


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
    fit = fit_probability(decided(300, 0))
    assert fit is not None
    once = as_decisions([a_record("a", 0, 0, evaluations=1), a_record("b", 0, 0, evaluations=0)])
    assert np.isfinite(probabilities(fit, once)).tolist() == [True, False]


def test_an_image_that_failed_has_no_probability() -> None:
    fit = fit_probability(decided(300, 0))
    assert fit is not None
    values = probabilities(fit, as_decisions([a_record("a", 0, 0), a_record("b", 0, None)]))
    assert np.isfinite(values).tolist() == [True, False]
