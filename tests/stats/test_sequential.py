"""Intervals, p values and eliminations that hold at every number of images."""

import math
from decimal import Decimal
from itertools import chain, combinations, permutations
from math import log

import numpy as np
import pytest
from helpers.matrix import matrix

from bench.stats.sequential.betting import (
    Population,
    anytime_interval,
    anytime_p,
    closed_capital,
    first_narrow,
    interval_course,
    interval_ends,
    log_capital,
    standings,
)


def differences(n: int, better: float, discordant: float, seed: int) -> np.ndarray:
    """Differences of two runs on n images; `better` is the difference of their accuracies."""
    u = np.random.default_rng(seed).random(n)
    return np.where(u < (discordant + better) / 2, 1.0, np.where(u < discordant, -1.0, 0.0))


def drawn_from(size: int | None, values: np.ndarray) -> Population | None:
    """Images of equal weight from which the values were drawn; None if they are not finite."""
    return None if size is None else Population(size, size - np.arange(1.0, len(values) + 1))


def test_capital_is_the_mixture_of_binomial_likelihoods() -> None:
    """Against 0, by another route: ∫ (1 + λ)^wins (1 - λ)^losses dλ over (0, 1)."""
    from scipy.integrate import quad

    values = np.array([1.0, 0.0, 1.0, -1.0, 1.0, 0.0, 1.0])
    expected, _ = quad(lambda bet: (1 + bet) ** 4 * (1 - bet), 0, 1)
    assert math.isclose(math.exp(log_capital(values, 0.0)[-1]), expected, rel_tol=1e-9)


@pytest.mark.parametrize("mean", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize("population", [None, 6])
def test_capital_is_fair(mean: float, population: int | None) -> None:
    """Its expectation is 1 over all outcomes if the mean is the hypothesis's."""
    if population is None:
        share = (1 + mean) / 2
        outcomes = [(share**k * (1 - share) ** (4 - k), k) for k in range(5)]
        total = 0.0
        for chance, wins in outcomes:
            values = np.array([1.0] * wins + [-1.0] * (4 - wins))
            total += math.comb(4, wins) * chance * math.exp(log_capital(values, mean)[-1])
    else:
        items = np.array([1.0, 1.0, -1.0, 0.0, 0.0, -1.0]) * 0.5 + mean
        drawn = [np.array(values) for values in permutations(items, 3)]
        capitals = [
            math.exp(log_capital(d, items.mean(), drawn_from(population, d))[-1]) for d in drawn
        ]
        total = float(np.mean(capitals))
    assert math.isclose(total, 1.0, rel_tol=1e-9)


def test_capital_falls_as_the_hypothesis_rises() -> None:
    values = differences(80, 0.1, 0.4, 2)
    population, means = drawn_from(200, values), np.linspace(-0.9, 0.9, 19)
    capitals = np.array([log_capital(values, mean, population).max() for mean in means])
    assert (capitals[1:] <= capitals[:-1] + 1e-9).all()


def test_the_interval_ends_at_the_truth_of_the_split() -> None:
    values = np.random.default_rng(3).permutation(differences(200, 0.1, 0.4, 3))
    course = interval_course(values, 10, drawn_from(200, values))
    assert [n for n, _, _ in course][-1] == 200
    assert all(low <= values.mean() <= high for _, low, high in course[-3:])
    assert course[-1][1:] == (values.mean(), values.mean())


def test_what_is_possible_is_counted() -> None:
    """A mean is excluded as soon as, and only if, the remaining values cannot lead to it."""
    values = np.array([1.0] * 7 + [0.0] * 93)
    population = drawn_from(100, values)
    assert population and not population.excludes(values, Decimal("0.07")).any()
    assert list(population.excludes(values, Decimal("0.0699"))) == [False] * 99 + [True]
    assert np.isinf(log_capital(values, 0.0699, population)).sum() == 1
    assert np.isfinite(log_capital(values, Decimal("0.07"), population)).all()


@pytest.mark.parametrize("population", matrix([None, 90, 200], [90]))
def test_the_first_narrow_number_is_the_smallest(population: int | None) -> None:
    rng = np.random.default_rng(5)
    drawn = np.where(rng.random(90) < 0.9, 1.0, -1.0) * rng.choice([0.2, 1.0], 90)
    images = drawn_from(population, drawn)
    spans = [float(np.ptp(anytime_interval(drawn[:n], images))) for n in range(91)]
    assert (np.diff(spans) <= 1e-9).all(), "each interval is within the one before"
    for width in (1.0, 0.7, 0.5, 0.2, 0.1, spans[40] + 1e-9):
        narrow = [n for n, span in enumerate(spans) if span <= width]
        assert first_narrow(drawn, width, images) == min(narrow, default=91)


@pytest.mark.parametrize("population", matrix([None, 60], [60]))
def test_an_interval_lies_within_every_earlier_one(population: int | None) -> None:
    """Also in orders that drift, in which the interval of the last images alone moves away."""
    for seed in range(6):
        values = np.sort(differences(60, 0.2, 0.7, seed))[:: (-1) ** seed]
        values[20:] = np.random.default_rng(seed).permutation(values[20:])
        images = drawn_from(population, values)
        low, high = np.array([interval_ends(values[:n], images) for n in range(61)]).T
        assert (np.diff(low) >= -1e-9).all() and (np.diff(high) <= 1e-9).all()


@pytest.mark.parametrize("size", [None, 400])
def test_if_every_mean_is_rejected_the_interval_has_what_is_possible(size: int | None) -> None:
    values = np.repeat([1.0, -1.0], [60, 140])
    low, high = interval_ends(values, drawn_from(size, values))
    assert low > high
    expected = (-1.0, 1.0) if size is None else (-280 / 400, 120 / 400)
    assert anytime_interval(values, drawn_from(size, values)) == pytest.approx(expected)


def test_no_value_says_nothing() -> None:
    none = np.zeros(0)
    assert anytime_p(none, 0.0) == 1.0
    assert anytime_interval(none) == pytest.approx((-1, 1))


def methods(n: int, *accuracies: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Results of methods on n images whose difficulty they share in part."""
    rng = np.random.default_rng(seed)
    shared = rng.random(n)
    return {
        f"m{place}": ((shared + 0.3 * rng.random(n)) / 1.3 < accuracy).astype(float)
        for place, accuracy in enumerate(accuracies)
    }


def test_methods_that_are_not_the_best_leave() -> None:
    results = methods(800, 0.5, 0.8, 0.3)
    shown = standings(results, "best")
    assert set(shown.out) == {"m0", "m2"} and shown.leader == "m1" and shown.decided
    assert shown.out["m2"] < shown.out["m0"]
    before = {name: right[: shown.out["m0"] - 1] for name, right in results.items()}
    assert set(standings(before, "best").out) == {"m2"}


def test_a_method_that_left_has_fewer_images_and_stays_out() -> None:
    results = methods(800, 0.5, 0.8, 0.3)
    left = standings(results, "best").out["m2"]
    results["m2"] = results["m2"][:left]
    shown = standings(results, "best")
    assert shown.decided and shown.out["m2"] == left


def test_equal_methods_end_by_the_margin_alone() -> None:
    results = methods(2500, 0.7, 0.7)
    assert not standings(results, "best").decided
    assert standings(results, "best", 0.1).decided
    assert not standings(results, "ranked").decided
    assert standings(results, "ranked", 0.1).decided


def test_a_ranking_needs_every_pair() -> None:
    results = methods(1000, 0.3, 0.9, 0.6)
    assert standings(results, "ranked").decided
    few = {name: right[:60] for name, right in results.items()}
    close = standings({**few, "m3": few["m2"]}, "ranked")
    assert ("m2", "m3") in close.unresolved and not close.decided
    assert {"m2", "m3"} <= set(close.open)


def test_the_best_of_equal_methods_stays() -> None:
    """Of 200 studies of five equal methods, at most 5 % ever call a certain one worse."""
    wrong = sum(
        "m0" in standings(methods(150, *[0.6] * 5, seed=seed), "best").out for seed in range(200)
    )
    assert wrong <= 10


def test_equal_methods_are_seldom_ranked() -> None:
    """Of 60 studies of five equal methods, few ever order any pair: the level is of all pairs."""
    wrong = sum(
        len(standings(methods(150, *[0.6] * 5, seed=seed), "ranked").unresolved) < 10
        for seed in range(60)
    )
    assert wrong <= 6


@pytest.mark.parametrize("methods", [2, 3, 6])
def test_the_closed_test_needs_every_set_that_contains_a_method(methods: int) -> None:
    """By another route: the smallest mean of capitals over all sets, listed one by one."""
    capital = np.random.default_rng(methods).normal(0, 3, (40, methods))
    closed = closed_capital(capital)
    sizes = range(1, methods + 1)
    for method in range(methods):
        sets = chain.from_iterable(combinations(range(methods), size) for size in sizes)
        means = [np.exp(capital[:, list(s)]).mean(axis=1) for s in sets if method in s]
        assert np.exp(closed[:, method]) == pytest.approx(np.min(means, axis=0))


def test_capitals_beyond_all_numbers_are_read() -> None:
    assert (closed_capital(np.array([[2000.0, 1500.0, 0.0]])) >= [[290, 290, 0]]).all()


def test_a_strict_study_drops_only_what_is_worse_than_the_best_together() -> None:
    results = methods(800, 0.5, 0.8, 0.3)
    usual, strict = standings(results, "best"), standings(results, "best", strict=True)
    assert set(strict.out) == set(usual.out) == {"m0", "m2"}
    for name, dropped in strict.out.items():
        assert dropped >= usual.out[name] and strict.p[name] <= 0.05
        at = {other: right[:dropped] for other, right in results.items()}
        assert standings(at, "best").p[name] <= 0.05
        before = {other: right[: dropped - 1] for other, right in results.items()}
        assert standings(before, "best").p[name] > 0.05


@pytest.mark.long
def test_tied_methods_are_seldom_shown_to_be_worse_though_some_are_dropped() -> None:
    """Of 150 studies of six equal methods; the level of what is dropped is that of one method."""
    dropped = worse = 0
    for seed in range(150):
        shown = standings(methods(150, *[0.6] * 6, seed=seed), "best")
        dropped += bool(shown.out)
        worse += min(shown.p.values()) <= 0.05
    assert worse <= 0.05 * 150 < dropped


def test_the_p_of_a_method_that_left_never_rises() -> None:
    results = methods(400, 0.5, 0.8, 0.7)
    shown = [
        standings({m: right[:n] for m, right in results.items()}, "best").p
        for n in (1, 20, 60, 150, 400)
    ]
    assert (np.diff([[p[m] for m in results] for p in shown], axis=0) <= 1e-12).all()
    assert shown[-1]["m0"] < 0.05 < 1 and log(shown[-1]["m1"]) == 0
