"""Decisions that another run makes otherwise: against simulations, by hand, and what is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.runs import a_record
from scipy.stats import norm

from bench.stats.agreement import (
    EM_STEPS,
    FEWEST_IMAGES,
    GAPS,
    flip_probability,
    prior_factor,
    repeatability,
)
from bench.stats.shares import exact_interval
from bench.store.decisions import as_decisions


def test_flips_as_often_as_two_seeds_differ() -> None:
    """Decisions drawn twice from known margins: the first run predicts how the second differs."""
    rng = np.random.default_rng(0)
    expectation = rng.normal(0, 0.05, 40_000)  # a flat prior, nearly: much wider than the error
    error = 0.01
    one, other = (expectation + rng.normal(0, error, 40_000) for _ in range(2))
    flips = flip_probability(np.abs(one), np.full(40_000, error))
    assert flips.mean() == pytest.approx((np.sign(one) != np.sign(other)).mean(), rel=0.05)


def test_every_rival_counts_and_not_the_runner_up_alone() -> None:
    """Ten classes: the runner-up alone gives 0.66 of what two runs differ in."""
    rng = np.random.default_rng(1)
    n, error = 20_000, 0.01
    expected = rng.normal(0, 0.05, (n, 10))
    one, other = (expected + rng.normal(0, error / np.sqrt(2), (n, 10)) for _ in range(2))
    gaps = np.diff(np.sort(one, axis=1), prepend=0)[:, 1:].cumsum(axis=1)
    differ = (one.argmin(axis=1) != other.argmin(axis=1)).mean()
    stderr = np.full(n, error)
    assert flip_probability(gaps[:, 0], stderr, gaps).mean() == pytest.approx(differ, rel=0.05)
    assert flip_probability(gaps[:, 0], stderr).mean() < 0.9 * differ


@pytest.mark.parametrize("rivals", [1, 2, 9])
def test_a_tie_of_all_is_drawn_by_lot(rivals: int) -> None:
    found = flip_probability(np.zeros(1), np.ones(1), np.zeros((1, rivals)))
    assert found[0] == pytest.approx(rivals / (rivals + 1), abs=1e-4)


def on_draws(name: str, label: int, prediction: int, draws: int = 16, **changes: Any) -> Any:
    other = 0 if prediction else 1
    return a_record(
        name, label, prediction, top=[[prediction, 0.1, draws], [other, 0.12, draws]], **changes
    )


def test_by_hand() -> None:
    records: Any = [
        on_draws("sure", 0, 0, margin=1.0, margin_stderr=0.0),
        on_draws("tie", 0, 0, margin=0.0, margin_stderr=0.1),  # p = 1/2
        on_draws("wrong, and so is its runner-up", 2, 1, margin=0.0, margin_stderr=0.1),
        a_record("failed", 1, None),
    ]
    found = repeatability(as_decisions(records), own_noise=True)
    assert found is not None and found.n == 3 and found.doubtful == 2
    assert found.expected_flips == pytest.approx(1.0)
    assert found.accuracy_stderr == pytest.approx(0.5 / 3)  # one decision of three, p = 1/2


def test_images_without_a_standard_error_are_counted_as_unknown() -> None:
    records: Any = [on_draws("a", 0, 0), on_draws("b", 0, 0, margin_stderr=None)]
    found = repeatability(as_decisions(records))
    assert found is not None and (found.n, found.unknown) == (1, 1)


def test_few_draws_have_no_estimate() -> None:
    """The standard error of eight draws of the digits was 1.2 times what seeds differ by."""
    assert repeatability(as_decisions([on_draws("a", 0, 0, draws=15)])) is None
    assert repeatability(as_decisions([on_draws("a", 0, 0, draws=16)])) is not None


def test_gaps_that_are_rare_near_zero_change_fewer_answers() -> None:
    """Of a model that tells its classes apart: a flat prior expects twice what differs."""
    rng = np.random.default_rng(3)
    gaps = rng.uniform(3.0, 12.0, 4000)
    one, other = (gaps + rng.normal(0, 1, 4000) for _ in range(2))
    differ = (one * other < 0).sum()
    records: Any = []
    for i, lead in enumerate(np.abs(one).tolist()):
        top = [[0, 0.0, 16], [1, lead, 16]]
        records.append(a_record(str(i), 0, 0, margin=lead, margin_stderr=1.0, top=top))
    found = repeatability(as_decisions(records))
    flat = flip_probability(np.abs(one), np.ones(4000)).sum()
    assert found is not None and flat > 2 * differ
    assert found.expected_flips < 0.6 * flat and found.expected_flips > 0.5 * differ


@pytest.mark.parametrize("n", [FEWEST_IMAGES - 1, FEWEST_IMAGES, 200])
def test_the_prior_is_fitted_by_expectation_and_maximisation(n: int) -> None:
    """A lead is normal about the gap, or about minus the gap if the winner is the wrong one."""
    lead = np.abs(np.random.default_rng(n).normal(1.0, 1.5, n)).round(2)
    right, wrong = (norm.pdf(lead[:, None], place) for place in (GAPS, -GAPS))
    wrong[:, 0] = 0  # without a gap, neither is wrong
    prior = np.full(len(GAPS), 1 / len(GAPS))
    for _ in range(EM_STEPS):
        shares = prior * (right + wrong)
        prior = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    swapped = right * norm.cdf(-GAPS) + wrong * norm.cdf(GAPS)
    fitted = (swapped @ prior) / ((right + wrong) @ prior)
    factor = fitted / norm.cdf(-lead / np.sqrt(2)) if n >= FEWEST_IMAGES else np.ones(n)
    np.testing.assert_allclose(prior_factor(lead), factor, rtol=1e-9)


def test_images_that_share_their_noise_give_no_standard_error_of_the_accuracy() -> None:
    """All margins move together: the accuracy moves by 1/2 in all, and not by 1/2 over sqrt(n)."""
    records: Any = [on_draws(str(i), 0, 0, margin=0.0, margin_stderr=0.1) for i in range(100)]
    shared, own = (
        repeatability(as_decisions(records)),
        repeatability(as_decisions(records), own_noise=True),
    )
    assert shared is not None and shared.accuracy_stderr is None
    assert own is not None and own.accuracy_stderr == pytest.approx(0.05)


def test_the_exact_interval_holds_its_level() -> None:
    """Nothing in 60 still allows six in a hundred (Clopper & Pearson 1934)."""
    low, high = exact_interval(0, 60)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 60))
    rng, true = np.random.default_rng(2), 0.03
    ends = [exact_interval(count, 60) for count in range(61)]
    counts = rng.binomial(60, true, 5000)
    assert np.mean([ends[c][0] <= true <= ends[c][1] for c in counts]) > 0.95
