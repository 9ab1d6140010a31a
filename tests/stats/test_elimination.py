"""Tests of methods that leave a study, and of the order of those that stay."""

from __future__ import annotations

from itertools import chain, combinations
from math import log

import numpy as np
import pytest

from bench.stats.sequential import closed_capital, standings


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
