"""Bounds: what a risk needs, and conformal quantiles of first-order scores."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.inputs.subsets import draw_sample
from bench.stats.calibration.risk import (
    choose_sweep,
    conformal_quantile,
    distances,
    images_needed,
    keeps,
    most_differing,
    passing,
    upper_limit,
)


@pytest.mark.parametrize(
    ("risk", "disagreements", "n"), [(0.01, 0, 299), (0.02, 0, 149), (0.05, 0, 59), (0.05, 1, 93)]
)
def test_how_many_images_are_needed(risk: float, disagreements: int, n: int) -> None:
    assert images_needed(risk, disagreements) == n
    assert keeps(disagreements, n, risk) and not keeps(disagreements, n - 1, risk)


@pytest.mark.parametrize(
    ("risk", "of", "n"), [(0.02, 210, 94), (0.02, 360, 112), (0.02, 2100, 140), (0.05, 210, 49)]
)
def test_how_many_images_of_a_split_are_needed(risk: float, of: int, n: int) -> None:
    assert images_needed(risk, of=of) == n < images_needed(risk)
    assert keeps(0, n, risk, of=of) and not keeps(0, n - 1, risk, of=of)


def test_shares_of_a_split_are_whole_images() -> None:
    assert [most_differing(risk, 100) for risk in (0.29, 0.05, 0.009)] == [29, 5, 0]
    assert images_needed(0.05, disagreements=18, of=360) == 360  # 18 are allowed: none to spare
    assert images_needed(0.01, of=10) == 10


@pytest.mark.parametrize(("of", "risk"), [(210, 0.05), (360, 0.02), (2100, 0.02), (60, 0.2)])
def test_a_sweep_has_the_least_expected_cost(of: int, risk: float) -> None:
    """With so many allowed as it says, and not with one more or fewer."""
    full, race = 840.0, 84.0
    chosen = choose_sweep(of, risk, full, race, full)
    assert chosen.images == images_needed(risk, chosen.allowed, of=of)
    draws = np.random.default_rng(0).random((20_000, chosen.images)) < 0.005
    passes = (draws.sum(axis=1) <= chosen.allowed).mean()
    assert chosen.passes == pytest.approx(passes, abs=0.015)
    rest = chosen.passes * race + (1 - chosen.passes) * full
    assert chosen.cost == pytest.approx(chosen.images * full + (of - chosen.images) * rest)
    for allowed in range(min(5, most_differing(risk, of))):
        images = images_needed(risk, allowed, of=of)
        p = np.mean(np.random.default_rng(1).binomial(images, 0.005, 20_000) <= allowed)
        cost = images * full + (of - images) * (p * race + (1 - p) * full)
        assert chosen.cost < cost * 1.02
    cheap = choose_sweep(of, risk, full, race, 264.0)
    assert cheap.images <= chosen.images and cheap.cost < chosen.cost


@pytest.mark.parametrize(
    ("of", "risk", "allowed"),
    [
        (210, 0.05, 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((210, 0.05, 0), (360, 0.02, 0), (500, 0.05, 3))
        ),
    ],
)
def test_the_promise_is_broken_in_five_percent_of_draws_at_most(
    of: int, risk: float, allowed: int
) -> None:
    """At the least favourable number of decisions that differ: one more than the risk allows.

    The images are drawn as a run draws them. Three settings are tested in order: a safe one, and
    two that differ on one decision too many. Half of the images on which they do are the same.
    """
    runs, n = 2000, images_needed(risk, allowed, of=of)
    ids = [f"image {number}" for number in range(of)]
    too_many = most_differing(risk, of) + 1
    differing = [set(ids[:1]), set(ids[:too_many]), set(ids[too_many // 2 :][:too_many])]
    broken = tight = 0
    for key in range(runs):
        swept = set(draw_sample(ids, n, f"run {key}"))
        counts = [len(images & swept) for images in differing]
        passed = passing(counts, n, risk, of=of)
        broken += any(len(differing[place]) > risk * of for place in passed)
        tight += counts[1] <= allowed
    bound = 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)
    assert broken / runs <= bound
    assert 0.02 < tight / runs <= bound  # the test is exact: it wastes little


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


SHARES = [(0.0, 0.01, 0.021, 0.03), (0.0005, 0.0205, 0.0205, 0.0205)]


@pytest.mark.parametrize("shares", [pytest.param(SHARES[0], marks=pytest.mark.matrix), SHARES[1]])
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
