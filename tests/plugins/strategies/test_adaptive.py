"""`adaptive` and `paired-ttest` equal the algorithms that were published."""

import numpy as np
import pytest
from helpers.refusals import refused
from helpers.tables import (
    Errors,
    concluded,
    evaluations,
    make,
    make_problem,
    make_table,
    prediction,
    run,
)
from scipy.stats import ttest_rel

from bench.contracts.strategy import Ints
from bench_plugins.strategies.elimination import Adaptive, shuffle_draws


def test_two_stages_by_hand() -> None:
    """Two of four draws are 1 and 3; the means there are 5, 1, 2, 9, so prompts 1 and 2 stay."""
    table = np.array([[1, 5, 1, 5], [9, 1, 9, 1], [9, 2, 1, 2], [0, 9, 0, 9]], dtype=np.float32)
    session = make("adaptive", 4, samples=(2, 4), keep=(2, 1)).start(make_problem(table))
    asked = [(r.prompts.tolist(), r.draws.tolist()) for r in evaluations(session, table)]
    assert asked == [([0, 1, 2, 3], [1, 3]), ([1, 2], [0, 2])]
    outcome = session.outcome()
    assert outcome.ranking[:2].tolist() == [2, 1]  # their means over all draws
    np.testing.assert_allclose(outcome.scores[[2, 1]], [3.5, 5])


def published(errors: Errors, samples: tuple[int, ...], keep: tuple[int, ...]) -> tuple[int, int]:
    """Li et al., algorithm 2, written down again from its description: plain lists, no sharing."""
    n_prompts, n_draws = errors.shape
    seen: list[list[float]] = [[] for _ in range(n_prompts)]
    alive = list(range(n_prompts))
    used, evaluations = set(), 0
    for stage, (n, k) in enumerate(zip(samples, keep, strict=True)):
        if stage and len(alive) == 1:
            break
        grid = [((2 * j + 1) * n_draws) // (2 * n) for j in range(n)]
        fresh = [draw for draw in grid if draw not in used]
        used.update(grid)
        for prompt in alive:
            seen[prompt] += [float(errors[prompt, draw]) for draw in fresh]
            evaluations += len(fresh)
        alive = sorted(alive, key=lambda p: (sum(seen[p]) / len(seen[p]), p))[:k]
        alive.sort()
    return alive[0], evaluations


@pytest.mark.parametrize(
    ("samples", "keep"),
    [
        ((5, 50), (3, 1)),
        ((7, 30, 50), (6, 2, 1)),  # 7 and 30 do not divide 50, nor nest
        ((50,), (1,)),
        ((10, 10, 50), (5, 3, 1)),  # a stage that adds nothing
        ((20, 50), (1, 1)),  # decided before the last stage
    ],
)
@pytest.mark.parametrize("per_class", [1, 3])
def test_equals_the_published_algorithm(
    samples: tuple[int, ...], keep: tuple[int, ...], per_class: int
) -> None:
    strategy = make("adaptive", 50, samples=samples, keep=keep)
    for seed in range(30):
        errors = make_table(12, 50, seed=seed, gap=0.002)
        winner, evaluations = published(errors, samples, keep)
        decided = run(strategy, errors, per_class)
        assert concluded(decided).ranking[0] == winner // per_class
        assert decided.evaluations == evaluations


def test_ties_go_to_the_lower_prompt() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):  # errors of a few values only: many exact ties
        errors = rng.integers(0, 2, size=(9, 20)).astype(np.float32)
        strategy = make("adaptive", 20, samples=(4, 20), keep=(4, 1))
        assert prediction(strategy, errors) == published(errors, (4, 20), (4, 1))[0]
    assert (
        prediction(make("adaptive", 20, samples=(4, 20), keep=(4, 1)), np.ones((9, 20), "f4")) == 0
    )


@pytest.mark.parametrize(
    ("schedule", "classes", "evaluations"),
    [
        ("cifar10", 10, 2750),
        ("stl10", 10, 3000),
        ("pets", 37, 2050),
        ("food", 101, 5570),
        ("aircraft", 100, 5550),
        ("flowers", 102, 5590),
        ("objectnet", 113, 14400),
        ("imagenet", 1000, 124500),
    ],
)
def test_published_schedules_cost_what_was_published(
    schedule: str, classes: int, evaluations: int
) -> None:
    strategy = Adaptive(schedule=schedule)
    problem = make_problem(np.zeros((classes, strategy.draws), np.float32))
    assert strategy.at_most(problem) == evaluations


def test_a_schedule_settles_samples_and_keep() -> None:
    strategy = Adaptive(schedule="pets")
    assert strategy.settled == {"samples": (25, 250), "keep": (5, 1)}
    with refused("schedule", "dogs"):
        make("adaptive", None, schedule="dogs")


def test_a_schedule_refuses_other_samples_and_keep() -> None:
    """But the values of a recorded run, which are those of its schedule, are accepted."""
    with refused("schedule=food", "keep=20,10,5,1"):
        make("adaptive", None, schedule="food", keep=(3, 1))
    again = Adaptive(schedule="food", samples=(20, 50, 100, 500), keep=(20, 10, 5, 1))
    assert again.settled == Adaptive(schedule="food").settled


def clark_and_jaini(errors: Errors, order: Ints, min_scores: int, cutoff: float) -> tuple[int, int]:
    """Their algorithm 1 with SciPy's test."""
    alive = list(range(len(errors)))
    evaluations = 0
    for n in range(1, len(order) + 1):
        evaluations += len(alive)
        if n < min(min_scores, len(order)):
            continue
        seen = errors[:, order[:n]].astype(float)
        best = min(alive, key=lambda p: (seen[p].mean(), p))
        alive = [
            p for p in alive if p == best or not ttest_rel(seen[p], seen[best]).pvalue < cutoff
        ]
        if len(alive) == 1:
            break
    return min(alive, key=lambda p: (seen[p].mean(), p)), evaluations


@pytest.mark.parametrize(("min_scores", "cutoff"), [(20, 2e-3), (5, 0.05), (100, 2e-3)])
def test_paired_ttest_equals_the_algorithm_with_scipys_test(min_scores: int, cutoff: float) -> None:
    strategy = make("paired-ttest", 60, min_scores=min_scores, cutoff=cutoff)
    for seed in range(8):
        errors = make_table(6, 60, seed=seed, gap=0.004)
        decided = run(strategy, errors)
        expected = clark_and_jaini(errors, shuffle_draws(60, 0), min_scores, cutoff)
        assert (concluded(decided).ranking[0], decided.evaluations) == expected


def test_identical_prompts_are_never_told_apart() -> None:
    errors = make_table(4, 60, gap=0.1)
    errors = np.concatenate([errors, errors])
    decided = run(make("paired-ttest", 60), errors)
    assert concluded(decided).ranking[0] == errors[:4].mean(axis=1).argmin()
    assert sorted(concluded(decided).draws)[-2:] == [60, 60]


def test_a_constant_difference_is_told_apart_at_once() -> None:
    errors = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (2, 1))
    errors[1] += 0.5
    assert run(make("paired-ttest", 64), errors).evaluations == 40
