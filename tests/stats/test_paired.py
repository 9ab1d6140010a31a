"""The paired tests and intervals, against definitions, simulations and other implementations."""

from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import store

from bench.stats.inference.paired import (
    Z95,
    difference_interval,
    mcnemar,
    normal_cdf,
    paired_test,
    paired_wins,
)
from bench.store.folder import read_manifest
from bench.store.formats.decisions import read_decisions, shared_rows


@pytest.mark.long
def test_the_interval_covers_the_truth() -> None:
    """The true difference is 0.1; of 1,000 experiments about 95 % must say so."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        draw = rng.random(200)
        low, high = paired_test(draw < 0.6, rng.random(200) < 0.7).difference.interval
        covered += low <= 0.1 <= high
    assert 0.935 <= covered / 1000 <= 0.965


@pytest.mark.parametrize("n", [1, 20, 360, 200_000])
def test_the_interval_has_a_width_where_no_pair_differs(n: int) -> None:
    """Its end by hand, from the skewness and the deviation of n losses with this probability.

    It is near the exact bound: the probability with which n losses are all absent in 2.5 %.
    """
    low, high = difference_interval(0, 0, n)
    deviation = np.sqrt(n * high * (1 - high))
    skewness = -(1 - 2 * high) / deviation
    away = (n * high - 0.5) / deviation
    assert away == pytest.approx(Z95 + skewness * (Z95**2 - 1) / 6, rel=1e-6)
    assert low == pytest.approx(-high) and high == pytest.approx(1 - 0.025 ** (1 / n), rel=0.07)


def test_an_interval_without_0_is_no_wider_claim_than_the_exact_test() -> None:
    """Wherever McNemar's exact test rejects, the score interval excludes 0 by itself."""
    for total in [*range(1, 40), 200, 900]:
        wins = np.arange(total + 1)
        rejected = mcnemar(wins, total - wins) <= 0.05
        for n in (total, 3 * total):
            low, high = difference_interval(wins, total - wins, np.full(total + 1, n))
            assert not (rejected & (low <= 0) & (high >= 0)).any()


@pytest.mark.parametrize(("wins", "losses", "n"), [(5, 0, 5), (0, 5, 5), (3, 4, 7), (1, 0, 90)])
def test_the_interval_holds_the_difference_and_turns_with_the_sides(
    wins: int, losses: int, n: int
) -> None:
    low, high = difference_interval(wins, losses, n)
    assert -1 <= low <= (wins - losses) / n <= high <= 1 and low < high
    other_low, other_high = difference_interval(losses, wins, n)
    assert (other_low, other_high) == pytest.approx((-high, -low))


def test_all_pairs_at_once_equal_one_at_a_time(tmp_path: Path) -> None:
    """Runs of other images, in another order, and images tried again."""
    rng = np.random.default_rng(2)
    runs = []
    for seed in range(5):
        ids = [f"s{i}" for i in rng.permutation(40)[: 25 + seed]]
        said = rng.integers(0, 2, len(ids)).tolist()
        path = store(tmp_path, [0] * len(ids), said, sample_ids=ids, seed=seed)
        journal = path / "samples.jsonl"
        journal.write_text(journal.read_text().splitlines(True)[3] + journal.read_text())
        runs.append(read_decisions(path, read_manifest(path)))
    wins = paired_wins(iter(runs))
    for i, one in enumerate(runs):
        for j, other in enumerate(runs):
            mine, its = shared_rows(one, other)
            assert wins[i, j] == (one.correct[mine] & ~other.correct[its]).sum()


def test_mcnemar_is_exact() -> None:
    def exact(wins: int, losses: int) -> Fraction:
        n, tail = wins + losses, sum(comb(wins + losses, k) for k in range(min(wins, losses) + 1))
        return min(Fraction(1), Fraction(2 * tail, 2**n))

    small = [[wins, losses] for wins in range(0, 61, 4) for losses in range(0, 61, 3)]
    pairs = np.array([*small, [700, 801], [3000, 3300]])
    wanted = [float(exact(*map(int, pair))) for pair in pairs]
    assert mcnemar(*pairs.T) == pytest.approx(wanted, rel=1e-13, abs=0)
    assert mcnemar(30_000, 31_000) == pytest.approx(5.234e-05, rel=1e-3), "no underflow"
    assert mcnemar(np.zeros((0, 0), int), np.zeros((0, 0), int)).shape == (0, 0)


def test_the_normal_distribution_equals_scipy_s() -> None:
    from scipy.special import ndtr

    x = np.append(np.linspace(-30, 30, 301), [np.nan, np.inf, -np.inf]).reshape(-1, 8)
    assert normal_cdf(x) == pytest.approx(ndtr(x), rel=1e-12, abs=0, nan_ok=True)
    assert normal_cdf(0.3) == pytest.approx(ndtr(0.3))
