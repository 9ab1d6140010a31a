"""Many comparisons: against scipy, by definition, and by how often simulated studies err."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.stats import many
from bench.stats.crossed import Floats
from bench.stats.many import compare_all, corrected, differ, equality_p, holm, permutation_p


def test_holm_rejects_step_by_step() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.random(7) ** 2
        adjusted = holm(p)
        for alpha in (0.01, 0.05, 0.2, 0.6):
            rejected = np.zeros(7, bool)
            for step, place in enumerate(np.argsort(p)):
                if p[place] * (7 - step) > alpha:
                    break
                rejected[place] = True
            assert ((adjusted <= alpha) == rejected).all()
    assert holm([]).size == 0


def test_the_permutation_test_is_scipys() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, (2, 12)) / 3
    exact = stats.permutation_test(
        (b, a), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=5000
    )
    assert permutation_p(b - a) == pytest.approx(exact.pvalue, abs=0.02)
    assert permutation_p(np.zeros(5)) == 1.0


def runs(
    rng: np.random.Generator, gap: float, n: int = 200, seeds: int = 3
) -> tuple[Floats, Floats]:
    """Return two methods that share most of their mistakes, [seeds, 1, n] each."""
    hard = rng.random(n)
    a = rng.random((seeds, 1, n)) < 0.9 - 0.5 * hard
    b = rng.random((seeds, 1, n)) < 0.9 - 0.5 * hard - gap
    return a.astype(float), b.astype(float)


def test_five_percent_of_equal_methods_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "PERMUTATIONS", 999)
    rng = np.random.default_rng(2)
    p = np.array([differ(*runs(rng, 0.0))[1] for _ in range(150)])
    assert 0.01 <= (p < 0.05).mean() <= 0.10


def test_equality_is_claimed_rarely_where_the_margin_is_passed() -> None:
    rng, margin = np.random.default_rng(3), 0.05

    def claimed(gap: float, n: int, seeds: int, studies: int) -> float:
        p = [equality_p(*runs(rng, gap, n, seeds), margin) for _ in range(studies)]
        return float(np.mean(np.array(p) < 0.05))

    assert claimed(margin, 900, 1, 200) <= 0.10
    assert claimed(margin, 300, 3, 100) <= 0.12
    assert claimed(0.0, 4000, 1, 20) >= 0.8


def test_what_is_not_different_is_not_equal_for_that() -> None:
    a, b = runs(np.random.default_rng(4), 0.0, 30)
    found = corrected(compare_all([("a", a), ("b", b)], margin=0.02))[0]
    assert not found.different and not found.equal and found.p_equal is not None


def test_balanced_accuracy_weighs_images_by_their_class() -> None:
    right = np.zeros((2, 1, 1, 10))
    right[1, ..., :2] = 1.0  # of the class that has two images, all
    weights = np.array([2.5] * 2 + [0.625] * 8)
    one = compare_all([("a", right[0]), ("b", right[1])], weights=weights)[0]
    assert one.difference == pytest.approx(0.5) and one.test == "permutation"


def test_runs_that_never_differ_on_few_images_are_not_equal_for_that() -> None:
    same = np.ones((3, 2, 21))
    one = compare_all([("a", same), ("b", same.copy())], margin=0.03)[0]
    assert one.p_equal is not None and one.p_equal > 0.2 and one.interval[1] > 0.05
    many = np.ones((3, 2, 2000))
    sure = compare_all([("a", many), ("b", many.copy())], margin=0.03)[0]
    assert sure.p_equal is not None and sure.p_equal < 0.001
