"""`race tie=EPS`: leaders whose difference cannot matter are not told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.refusals import refused
from helpers.tables import Errors, concluded, make, make_problem, run

TIE = 0.01


def tied_table(seed: int, leaders: int = 2, gap: float = TIE / 4) -> Errors:
    """Return errors of ten prompts whose best few differ by less than `TIE`; errors in [0, 1]."""
    rng = np.random.default_rng(seed)
    level = np.where(np.arange(10) < leaders, gap * np.arange(10), 0.1)
    return (0.4 + level[:, None] + rng.uniform(-0.02, 0.02, (10, 200))).astype(np.float32)


def regret(errors: Errors, prediction: int) -> float:
    means = errors.astype(np.float64).mean(axis=1)
    return float(means[prediction] - means.min())


@pytest.mark.parametrize("bound", ["t", "betting"])
def test_it_ends_early_and_gives_up_no_more_than_it_says(bound: str) -> None:
    span = {} if bound == "t" else {"span": 0.04 + 0.1}
    plain, tie = (make("race", 200, bound=bound, tie=eps, **span) for eps in (0, TIE))
    saved = 0
    for seed in range(20):
        errors = tied_table(seed, leaders=2, gap=0.0005)
        one, other = run(plain, errors), run(tie, errors)
        assert other.evaluations <= one.evaluations
        assert concluded(one).decided_by != "tie"
        assert regret(errors, int(concluded(other).ranking[0])) <= TIE
        if concluded(other).decided_by == "tie":
            saved += one.evaluations - other.evaluations
    assert saved > 0


def test_a_difference_that_matters_is_found() -> None:
    """The leader may be ahead when it ends: a rival that cannot be better need not be dropped."""
    ends = set()
    for seed in range(20):
        errors = tied_table(seed, gap=2 * TIE)
        decided = concluded(run(make("race", 200, delta=1e-4, tie=TIE), errors))
        ends.add(decided.decided_by)
        assert decided.ranking[0] == 0
    assert ends <= {"tie", "bound"}


def test_prompts_of_one_class_are_no_tie() -> None:
    """Only another class can be a rival."""
    errors = tied_table(0, leaders=2, gap=0.0)
    decided = concluded(run(make("race", 200, tie=TIE), errors, per_class=2))
    assert decided.ranking[0] == 0 and decided.decided_by == "bound"


def test_it_is_in_the_unit_of_the_score() -> None:
    """A score is a weighted mean: weights that are all twice as large change nothing."""
    strategy, errors = make("race", 200, tie=TIE), tied_table(3)
    problem = make_problem(errors)
    doubled = replace(problem, weights=2 * problem.weights)
    costs = [run(strategy, errors, problem=p).evaluations for p in (problem, doubled)]
    assert costs[0] == costs[1] < run(make("race", 200), errors).evaluations


def test_a_tie_ends_a_race_within_the_schedule() -> None:
    race = make("race", 200, tie=TIE, ceiling="published", delta=1e-3)
    assert concluded(run(race, tied_table(0))).decided_by == "tie"


def test_a_negative_difference_is_refused() -> None:
    with refused("tie", "-0.1"):
        make("race", 200, tie=-0.1)
