"""Independent halves of draws: what is measured on them, by hand and where the truth is known."""

from __future__ import annotations

import halves
import numpy as np
import pytest

CLASSES = np.arange(3)


def errors(images: int, draws: int, gap: float, seed: int = 0) -> tuple[halves.Errors, halves.Ints]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=images)
    values = rng.normal(1.0, 0.1, (images, 3, draws))
    values[np.arange(images), labels] -= gap
    return values.astype(np.float32), labels


@pytest.mark.parametrize("split", range(5))
def test_halves_share_no_draw_and_have_one_of_each_pair(split: int) -> None:
    first, second = halves.split_draws(9, split)
    assert sorted([*first, *second]) == list(range(8))
    assert (first // 2 == np.arange(4)).all() and (second // 2 == np.arange(4)).all()


def test_agreement_with_shared_draws_is_inflated_and_the_ceiling_is_not() -> None:
    values, labels = errors(600, 32, gap=0.0)  # no class is better: all decisions are noise
    curve = halves.curve(values, labels, CLASSES, 4)
    assert abs(curve.ceiling.mean() - 1 / 3) < 0.06
    assert curve.shared[-1].mean() > 0.5 > curve.agreement[-1].mean()
    assert (curve.agreement[-1] == curve.ceiling).all()


def test_the_least_cost_is_the_cheapest_within_a_point() -> None:
    ceiling = np.ones(200)
    agreement = np.ones((3, 200))
    agreement[0, :3], agreement[1, :2] = 0, 0  # 1.5 and 1.0 points below
    least = halves.least(np.array([1.0, 2.0, 4.0]), agreement, ceiling)
    assert (least.cost, least.shown) == (2.0, 4.0)
    assert halves.least(np.array([1.0]), agreement[:1], ceiling).cost is None
