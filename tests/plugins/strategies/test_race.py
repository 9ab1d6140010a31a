"""`race` decides as the full sweep at a fraction of its cost, and its bounds have their level."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.refusals import refused
from helpers.tables import Errors, concluded, evaluations, make, make_problem, make_table, run

from bench.contracts.draw_order import timestep_grid
from bench_plugins.strategies._bounds import t_lower

BOUNDS = ("t", "betting")


# The errors of each prompt on each draw, and the prompts that are asked for in each round: on two
# draws, then on one more each time.
@pytest.mark.parametrize(
    ("errors", "asked"),
    [
        ([[1, 1, 1, 1], [9, 9, 9, 8]], [[0, 1]]),  # far apart: dropped at the first look
        ([[1, 2, 1, 2], [1, 2, 1, 2]], [[0, 1]] * 3),  # equal: nobody is dropped
        ([[1] * 4, [2] * 4, [1, 1, 2, 1]], [[0, 1, 2], [0, 2], [0, 2]]),  # one is surely worse
        ([[1] * 8, [1, 2, 0, 1, 2, 1, 1, 3]], [[0, 1]] * 6),  # behind by little: after 7 draws
    ],
)
def test_a_race_by_hand(errors: list[list[float]], asked: list[list[int]]) -> None:
    table = np.array(errors, dtype=np.float32)
    session = make("race", table.shape[1], first=2, delta=0.02).start(make_problem(table))
    assert [request.prompts.tolist() for request in evaluations(session, table)] == asked
    assert session.outcome().ranking[0] == 0


def test_a_bound_by_hand() -> None:
    """Two of 8 draws; the differences from the leader are 1 and 2, so s² = (2 - 1)² / 2."""
    differences = np.array([[0.0, 0.0], [1.0, 2.0]])
    student = 6.3138  # with one degree of freedom, one-sided, at 0.05
    by_hand = 1.5 - student * (0.5 * (1 - 2 / 8) / 2) ** 0.5
    assert t_lower(differences, 8, 0.05)[1] == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("per_class", [1, 3])
def test_equals_exhaustive_when_draws_run_out(bound: str, per_class: int) -> None:
    # A level that no evidence reaches, on prompts that hardly differ.
    strategy = make("race", 20, bound=bound, delta=1e-15)
    for seed in range(20):
        errors = make_table(9, 20, seed=seed, gap=1e-4)
        decided = run(strategy, errors, per_class)
        assert decided.evaluations == errors.size
        exhaustive = concluded(run(make("full", 20), errors, per_class))
        assert concluded(decided).ranking[0] == exhaustive.ranking[0]
        np.testing.assert_allclose(concluded(decided).scores, exhaustive.scores)


def test_prompts_of_one_class_do_not_race_each_other() -> None:
    errors = make_table(6, 200, gap=0.1, noise=0.01)
    errors[:3] = errors.min(axis=0) - 0.2 + 0.01 * np.random.default_rng(1).random((3, 200))
    assert run(make("race", 200), errors, per_class=3).evaluations == 6 * 4


def test_it_costs_a_fraction_and_decides_alike() -> None:
    strategy, cost, equal = make("race", 250), 0.0, 0
    for seed in range(50):
        errors = make_table(20, 250, seed=seed, gap=0.01)
        decided = run(strategy, errors)
        cost += decided.evaluations / errors.size / 50
        equal += concluded(decided).ranking[0] == errors.mean(axis=1).argmin()
    assert cost < 0.1
    assert equal >= 48


def test_t_bound_of_independent_differences_has_its_level() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 8, 30):
        differences = rng.standard_normal((4000, n))
        wrong = (t_lower(differences, 10**9, 0.05) > 0).mean()
        assert 0.03 < wrong < 0.07
    one = 0.3 * rng.standard_normal((4000, 1))  # a draw whose deviation is known
    assert 0.03 < (t_lower(one, 10**9, 0.05, deviation=0.3) > 0).mean() < 0.07


def test_a_learned_deviation_halves_a_race_that_one_draw_decides() -> None:
    rng = np.random.default_rng(0)
    cost = {"known": 0, "unknown": 0}
    for _ in range(30):
        errors = 0.5 + 0.01 * rng.standard_normal((20, 40)) + np.r_[0.0, np.full(19, 0.1)][:, None]
        errors = errors.astype(np.float32)
        known = make("race", 40, first=1, deviation=0.01 * 2**0.5, delta=1e-3)
        for name, strategy in (("known", known), ("unknown", make("race", 40, first=2))):
            decided = run(strategy, errors)
            assert concluded(decided).ranking[0] == 0
            cost[name] += decided.evaluations
    assert cost["known"] < 0.6 * cost["unknown"] and cost["known"] >= 30 * 20


def test_weights_enter_the_race() -> None:
    errors = np.stack([np.full(40, 0.5), np.r_[np.full(20, 0.0), np.full(20, 0.9)]]).astype("f4")
    problem = make_problem(errors)
    weighted = type(problem)(
        problem.class_of_prompt, problem.timesteps, np.r_[np.full(20, 0.1), np.ones(20)]
    )
    for strategy in (make("race", 40, delta=1e-9), make("full", 40), make("paired-ttest", 40)):
        assert concluded(run(strategy, errors, problem=problem)).ranking[0] == 1
        assert concluded(run(strategy, errors, problem=weighted)).ranking[0] == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"delta": 0.0}, "delta"),
        ({"bound": "hoeffding"}, "hoeffding"),
        ({"first": 1}, "first"),
        ({"deviation": -0.1}, "deviation"),
        ({"deviation": 0.1, "bound": "betting"}, "bound=t"),
        ({"deviation": 0.1, "first": 0}, "first"),
        ({"span": -1.0}, "span"),
        ({"tie": -0.1}, "tie"),
        ({"bound": "betting", "order": "1-2"}, "order"),
        ({"bound": "serfling"}, "serfling"),
        ({"growth": 3}, "growth"),
        ({"order": "best"}, "best"),
    ],
)
def test_impossible_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with refused(message):
        make("race", 50, **params)


def test_a_race_of_pairs_asks_for_whole_pairs_and_runs_out_exactly() -> None:
    errors = make_table(4, 30, gap=1e-6)
    problem = replace(make_problem(errors), timesteps=np.repeat(timestep_grid(15, 1000), 2))
    session = make("race", 30, first=3).start(problem)
    sizes = [len(request.draws) for request in evaluations(session, errors)]
    assert all(size % 2 == 0 for size in sizes)
    assert sum(sizes) == 30
    assert session.outcome().ranking[0] == errors.astype(np.float64).mean(axis=1).argmin()


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
