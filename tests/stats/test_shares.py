"""Differences of independent estimates, against published values and by coverage."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.stats.inference.difference_tests import compare_over_images
from bench.stats.inference.shares import (
    Estimate,
    accuracy_interval,
    exact_bounds,
    exact_interval,
    lowest_interval,
    worst_group,
)


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


def test_exact_bounds_are_scipys() -> None:
    for count, n in ((0, 7), (3, 7), (7, 7), (210, 900)):
        exact = binomtest(count, n).proportion_ci(0.95, method="exact")
        assert exact_interval(count, n) == pytest.approx((exact.low, exact.high), abs=1e-12)
    [low], [high] = exact_bounds(np.array([19]), np.array([21]), 0.025 / 6)
    assert binomtest(19, 21, low, "greater").pvalue == pytest.approx(0.025 / 6)
    assert binomtest(19, 21, high, "less").pvalue == pytest.approx(0.025 / 6)


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ([20] * 10, 0.9),
        ([10] * 21, 0.97),
        ([50] * 4, 0.5),
        ([5, 10, 20, 40, 80], 0.9),
        ([20] * 10, [0.6] + [0.9] * 9),
    ],
)
def test_the_interval_of_the_lowest_share_covers_the_lowest(
    sizes: list[int], shares: float | list[float]
) -> None:
    n = np.array(sizes)
    truth = np.broadcast_to(shares, n.shape)
    tables = np.random.default_rng(8).binomial(n, truth, (1000, len(n)))
    ends = [lowest_interval(counts, n) for counts in tables]
    covered = [low <= truth.min() <= high for low, high in ends]
    chosen = [
        low <= (counts / n).min() <= high for counts, (low, high) in zip(tables, ends, strict=True)
    ]
    assert np.mean(covered) >= 0.95 and all(chosen)


def test_the_worst_group_has_two_intervals_and_one_group_has_one() -> None:
    right = np.arange(60) % 7 > 0
    worst = worst_group(np.repeat(["a", "b", "", "c"], 15), right)
    assert worst is not None and worst.groups == 3 and worst.lowest_ci95 is not None
    assert worst.accuracy_ci95 == accuracy_interval(round(15 * worst.accuracy), 15)
    assert worst.lowest_ci95[0] <= worst.accuracy <= worst.lowest_ci95[1]
    alone = worst_group(np.repeat("a", 60), right)
    assert alone is not None and alone.lowest_ci95 == alone.accuracy_ci95
    assert worst_group(None, right) is None
