"""`screen-race` decides as `race`, and who is out of reach costs nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.refusals import refused
from helpers.tables import Errors, concluded, evaluations, make, make_problem, make_table, run

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Evaluate, Linearise, Reply
from bench.recordings.recording import Tables
from bench.recordings.replay import decide
from bench_plugins.strategies.screen_race import ScreenRaceSession

COST = 3.0


def screened(
    errors: Errors, per_class: int = 1, noise: float = 0.0, seed: int = 0, **params: Any
) -> Decided:
    """Decide with a first-order table that is the exact one, bent and noisy."""
    rng = np.random.default_rng(seed)
    mean = errors.mean(axis=0)
    first_order = mean + 1.5 * (errors - mean) + noise * rng.standard_normal(errors.shape)
    prompts, draws = errors.shape
    known = Tables(errors, [(np.full(prompts, 1 / prompts), first_order.astype("f4"))], COST)
    problem = replace(make_problem(errors, per_class), can_linearise=True)
    return decide(Sample("x", 0, {}), known, make("screen-race", draws, **params), problem)


def test_a_screen_by_hand() -> None:
    """First-order scores of 0, 1, 2, 3 have a standard deviation of 1.12: two lie in a reach of 1.

    The race of these two ends at once, for the worse one is behind by the same on both draws.
    """
    errors = np.repeat(np.array([[1], [2], [0], [0]], np.float32), 8, axis=1)
    problem = replace(make_problem(errors), can_linearise=True)
    session = make("screen-race", 8, samples=2, reach=1.0, first=2).start(problem)
    screen = session.ask()
    assert isinstance(screen, Linearise)
    session.tell(screen, Reply(np.repeat(np.arange(4, dtype=np.float32)[:, None], 2, axis=1), 0.0))
    assert [request.prompts.tolist() for request in evaluations(session, errors)] == [[0, 1]]
    assert session.outcome().ranking.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("per_class", [1, 4])
@pytest.mark.parametrize("prompts", [4, 40, 1000])
def test_it_decides_alike_at_a_cost_that_hardly_grows(prompts: int, per_class: int) -> None:
    equal, cost = 0, 0.0
    for seed in range(10):
        errors = make_table(prompts, 100, seed=seed, gap=0.05)
        decided = screened(errors, per_class, noise=0.02, seed=seed)
        winner = errors.astype(float).mean(axis=1).argmin() // per_class
        equal += concluded(decided).ranking[0] == winner
        cost += decided.equivalents / 10
        assert decided.linearisations == 4
        assert decided.equivalents == 4 * COST + decided.evaluations
    assert equal == 10
    assert cost < 4 * COST + 4 * prompts  # what the first look of a race alone costs


def test_everything_in_reach_is_a_plain_race() -> None:
    errors = make_table(12, 60, gap=0.01)
    race = run(make("race", 60), errors)
    screen = screened(errors, reach=1e9)
    assert screen.evaluations == race.evaluations
    np.testing.assert_array_equal(concluded(screen).ranking, concluded(race).ranking)
    np.testing.assert_allclose(concluded(screen).scores, concluded(race).scores)


def test_who_is_out_of_reach_costs_nothing_and_ranks_by_first_order() -> None:
    errors = (np.arange(6)[:, None] + make_table(6, 40, gap=1e-9, noise=1e-3)).astype("f4")
    outcome = concluded(screened(errors, reach=0.0))
    np.testing.assert_array_equal(outcome.ranking, np.arange(6))
    np.testing.assert_array_equal(outcome.draws, [4, 0, 0, 0, 0, 0])
    assert np.isfinite(outcome.scores[0]) and np.isinf(outcome.scores[1:]).all()
    assert outcome.margin == pytest.approx(1.5, abs=0.1) and outcome.confidence > 0.99


def test_prompts_of_one_class_are_screened_one_by_one() -> None:
    """The class of the best prompt wins, though its other prompts are the worst of all."""
    errors = make_table(9, 100, gap=0.05)
    errors[[1, 2]] += 1.0
    errors[0] = errors.min(axis=0) - 0.05
    decided = screened(errors, per_class=3, reach=0.2)
    assert concluded(decided).ranking[0] == 0
    assert sorted(concluded(decided).ranking) == [0, 1, 2]
    asked = {p for request, _ in decided.cells for p in request.prompts.tolist()}
    assert 0 in asked and not {1, 2} & asked


def test_requests() -> None:
    errors = make_table(5, 50)
    problem = replace(make_problem(errors), can_linearise=True)
    session = make("screen-race", 50, samples=5).start(problem)
    request = session.ask()
    assert isinstance(request, Linearise)
    np.testing.assert_array_equal(request.draws, [5, 15, 25, 35, 45])
    np.testing.assert_allclose(request.mixture, 0.2)
    without = make("screen-race", 50).start(make_problem(errors)).ask()
    assert isinstance(without, Evaluate) and len(without.prompts) == 5


def test_a_second_screen_is_taken_among_who_is_left() -> None:
    errors = make_table(40, 60, gap=0.05)
    problem = replace(make_problem(errors), can_linearise=True)
    session = make("screen-race", 60, samples=2, screens=2, reach=1.0, first=2).start(problem)
    assert isinstance(session, ScreenRaceSession)
    first = session.ask()
    assert isinstance(first, Linearise)
    session.tell(first, Reply(np.repeat(np.arange(40.0), 2).reshape(40, 2).astype("f4"), 2 * COST))
    left = session.alive.copy()
    assert 3 < len(left) < 40  # more than a first look that costs what a screen does
    second = session.ask()
    assert isinstance(second, Linearise)
    np.testing.assert_allclose(second.mixture[left], 1 / len(left))
    assert second.mixture.sum() == pytest.approx(1.0)
    turned = np.where(np.isin(np.arange(40), left), -np.arange(40.0), -99.0)  # out stays out
    session.tell(second, Reply(np.repeat(turned, 2).reshape(40, 2).astype("f4"), 2 * COST))
    assert left[-1] in session.alive and left[0] not in session.alive
    requests = list(evaluations(session, errors))
    assert requests and set(requests[0].prompts) <= set(left.tolist())
    ranking = session.outcome().ranking
    assert set(ranking[: len(left)]) == set(left.tolist())
    np.testing.assert_array_equal(ranking[len(left) :], np.setdiff1d(np.arange(40), left))


def screens_made(cost: float, scores: list[np.ndarray], **params: Any) -> int:
    """Return how many screens are made if they return these first-order scores, [P] each."""
    problem = make_problem(make_table(len(scores[0]), 60))
    problem = replace(problem, can_linearise=True, linearisation_cost=cost)
    session = make("screen-race", 60, samples=2, screens=len(scores), **params).start(problem)
    for number, row in enumerate(scores):
        request = session.ask()
        if not isinstance(request, Linearise):
            return number
        session.tell(request, Reply(np.stack([row, row], axis=1).astype("f4"), 2 * cost))
    return len(scores)


@pytest.mark.parametrize(("cost", "screens"), [(1.0, 2), (9.9, 2), (10.1, 1), (30.0, 1)])
def test_a_second_screen_is_made_if_it_costs_less_than_a_first_look(
    cost: float, screens: int
) -> None:
    """Ten prompts are left, whose first look has two draws: 20 evaluations."""
    scores = np.repeat([0.0, 5.0], [10, 30])
    assert screens_made(cost, [scores, scores], reach=1.0, first=2) == screens


def test_no_screen_is_made_after_one_that_dropped_no_prompt() -> None:
    scores, equal = np.repeat([0.0, 5.0], [10, 30]), np.zeros(40)
    assert screens_made(1.0, [equal, scores], reach=1.0, first=2) == 1
    assert screens_made(1.0, [scores, equal, equal], reach=1.0, first=2) == 2


def test_few_who_are_left_race_at_once() -> None:
    errors = (np.arange(6)[:, None] + make_table(6, 40, gap=1e-9, noise=1e-3)).astype("f4")
    decided = screened(errors, reach=0.0, screens=3)
    assert decided.linearisations == 4


def test_a_recording_has_no_second_screen() -> None:
    with refused("linearis"):
        screened(make_table(30, 40, gap=0.05), reach=1.5, screens=2)


@pytest.mark.parametrize("params", [{"reach": -1.0}, {"samples": 0}, {"samples": 51}, {"first": 1}])
def test_impossible_parameters_are_refused(params: dict[str, Any]) -> None:
    with refused("screen-race"):
        make("screen-race", 50, **params)
