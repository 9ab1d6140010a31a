"""Tests of methods that leave a study, and of the order of those that stay."""

from __future__ import annotations

import numpy as np

from bench.stats.sequential import standings


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
