"""Differences of independent estimates, against published values and by coverage."""

from __future__ import annotations

import numpy as np
import pytest

from bench.stats.difference_tests import compare_over_images
from bench.stats.shares import Estimate, accuracy_interval


def proportion(correct: int, n: int) -> Estimate:
    return Estimate(correct / n, accuracy_interval(correct, n))


@pytest.mark.parametrize(
    ("a", "b", "interval"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ],
)
def test_the_difference_of_two_proportions_has_newcombes_interval(
    a: tuple[int, int], b: tuple[int, int], interval: tuple[float, float]
) -> None:
    """Newcombe (1998), table II, method 10."""
    difference = proportion(*a) - proportion(*b)
    assert difference.value == pytest.approx(a[0] / a[1] - b[0] / b[1])
    assert difference.interval == pytest.approx(interval, abs=5e-5)
    other_way = proportion(*b) - proportion(*a)
    assert other_way.interval == pytest.approx((-difference).interval)


def test_the_difference_of_two_changes_is_covered() -> None:
    """Of two methods that are paired on each of two datasets of different images."""
    rng, studies, n = np.random.default_rng(0), 200, (150, 80)
    covered = 0
    for _ in range(studies):
        by_dataset = []
        for size, drop in zip(n, (0.0, 0.2), strict=True):
            hard = rng.random(size)
            a, b = (
                (rng.random(size) < 0.9 - 0.4 * hard - lost).astype(float)[None, None]
                for lost in (drop, drop / 2)
            )
            tested = compare_over_images(a, b)
            by_dataset.append(Estimate(tested.estimate, tested.interval))
        low, high = (by_dataset[1] - by_dataset[0]).interval
        covered += low <= 0.1 <= high
    assert 0.91 <= covered / studies <= 0.995
