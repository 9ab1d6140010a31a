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


def test_the_least_draws_of_a_hard_question_are_more() -> None:
    answers = []
    for gap in (0.3, 0.1):
        values, labels = errors(400, 64, gap)
        curve = halves.curve(values, labels, CLASSES, 2)
        answers.append(halves.least(np.array(curve.draws, float), curve.agreement, curve.ceiling))
    easy, hard = answers
    assert easy.cost is not None and hard.cost is not None and easy.cost < hard.cost
    assert easy.low is not None and easy.high is not None and easy.shown is not None
    assert easy.low <= easy.cost <= easy.high
    assert easy.shown >= easy.cost  # to be shown takes more than a point estimate


def test_the_least_cost_is_the_cheapest_within_a_point() -> None:
    ceiling = np.ones(200)
    agreement = np.ones((3, 200))
    agreement[0, :3], agreement[1, :2] = 0, 0  # 1.5 and 1.0 points below
    least = halves.least(np.array([1.0, 2.0, 4.0]), agreement, ceiling)
    assert (least.cost, least.shown) == (2.0, 4.0)
    assert halves.least(np.array([1.0]), agreement[:1], ceiling).cost is None


def test_disjoint_draws_measure_what_another_seed_does() -> None:
    values, labels = errors(300, 32, gap=0.1)
    noise = halves.noise_of_draws(values, labels, CLASSES)
    assert {n: len(found) for n, found in noise.items()} == {1: 32, 2: 16, 4: 8, 8: 4, 16: 2}
    again = halves.decide(values, np.array([1, 9, 17, 25]), CLASSES) == labels
    assert noise[4][1] == again.mean()
