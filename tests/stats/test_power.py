"""Power: against the binomial test by hand, and by simulated studies."""

from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.runs import store
from scipy.stats import binomtest

from bench.stats.inference.paired import ALPHA, mcnemar
from bench.stats.inference.power import (
    exact_power,
    images_needed,
    max_significant_losses,
    smallest_difference,
)


def test_the_rejected_counts_are_the_binomial_tests() -> None:
    counts = np.arange(0, 40)
    for n, most in zip(counts.tolist(), max_significant_losses(counts).tolist(), strict=True):
        significant = [k for k in range(n // 2 + 1) if n and binomtest(k, n).pvalue < 0.05]
        assert most == max(significant, default=-1)


@pytest.mark.parametrize(
    ("n", "difference", "discordance"),
    [(100, 0.1, 0.15), (500, 0.02, 0.1), (2043, 0.02, 0.1), (10_000, 0.01, 0.2), (60, 0.3, 0.5)],
)
def test_the_power_is_what_simulated_studies_find(
    n: int, difference: float, discordance: float
) -> None:
    rng = np.random.default_rng(0)
    discordant = rng.binomial(n, discordance, size=2000)
    wins = rng.binomial(discordant, (discordance + difference) / (2 * discordance))
    shown = (mcnemar(wins, discordant - wins) < ALPHA) & (2 * wins > discordant)
    assert shown.mean() == pytest.approx(exact_power(n, difference, discordance), abs=0.02)


def test_the_images_needed_have_the_power_and_fewer_do_not() -> None:
    needed = images_needed(0.02, 0.1)
    assert needed is not None
    assert exact_power(needed, 0.02, 0.1) >= 0.8 > exact_power(int(0.97 * needed), 0.02, 0.1)
    smallest = smallest_difference(needed, 0.1)
    assert smallest == pytest.approx(0.02, rel=0.02)
    assert smallest_difference(20, 0.05) is None


def test_the_command(tmp_path: Path) -> None:
    labels = [i % 3 for i in range(90)]
    a = store(tmp_path, labels, labels, seed=0)
    b = store(tmp_path, labels, [0] * 6 + labels[6:], seed=1)
    found = bench("power", a, b, "--json").json
    assert (found["n"], found["discordance"]) == (90, pytest.approx(4 / 90))
    assert (
        "power of"
        in bench("power", "--difference", 0.02, "--discordance", 0.1, "--images", 500).out
    )
    for arguments, said in (
        (("--difference", 0.2, "--discordance", 0.1), "--difference"),
        ((), "two runs"),
        ((a, a), "images"),
        ((a, b, "--difference", 0), "--difference"),
        ((a, b, "--discordance", 0), "--discordance"),
    ):
        wrong = bench("power", *arguments)
        assert wrong.refuses(said)
