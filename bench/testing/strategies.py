"""What every strategy must keep, on made-up tables of errors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided, Interview
from bench.contracts.strategy import Evaluate, Outcome, Problem
from bench.engine.asking import CheckedStrategy

# Prompts, draws, prompts per class.
SHAPES = [(10, 40, 1), (12, 40, 3), (3, 1, 1), (2, 1, 1), (1, 20, 1), (4, 9, 4), (2, 30, 1)]
LARGE_SHAPE = (1000, 12, 1)
# Cost of a cell, of the null of a request's draw, of a linearised draw, in evaluations.
PRICES = [(1, 0, 3.0), (2, 0, 1.5), (1, 1, 6.0), (4, 2, 0.5)]
COST_ROUNDING = 1e-6  # of sums of costs


def made_table(
    prompts: int, draws: int, seed: int = 0, gap: float = 0.01, noise: float = 0.02
) -> NDArray[np.float32]:
    """Return errors, float32 [P, N].

    Trend and noise over the draws are shared, level and noise of a prompt its own. All levels but
    the best are `gap` or more above it.
    """
    rng = np.random.default_rng(seed)
    level = gap * rng.uniform(1, 4, size=(prompts, 1))
    level[rng.integers(prompts)] = 0
    shared = np.linspace(0.8, 0.1, draws) + 0.1 * rng.standard_normal(draws)
    own = noise * rng.standard_normal((prompts, draws))
    return np.asarray(shared + level + own, np.float32)


def made_problem(errors: NDArray[np.float32], per_class: int = 1, **fields: Any) -> Problem:
    """Return the question of a table with `per_class` prompts per class, on 1,000 levels."""
    prompts, draws = errors.shape
    levels = (2 * np.arange(draws) + 1) * 1000 // (2 * draws)
    return Problem(np.arange(prompts) // per_class, levels, **{"weights": np.ones(draws), **fields})


@dataclass
class Told:
    """A decision, and how often each cell was requested for it, int64 [P, N]."""

    decided: Decided
    asked: NDArray[np.int64]

    @property
    def outcome(self) -> Outcome:
        """The decision."""
        assert self.decided.outcome is not None, self.decided.error
        return self.decided.outcome


def decide(strategy: object, errors: NDArray[np.float32], problem: Problem) -> Told:
    """Let a strategy decide on a table; the reply to a linearisation are the errors themselves.

    Requests and outcome are checked as in a run: cells and draws that exist, none twice, and a
    ranking of every class.
    """
    checked = CheckedStrategy(strategy, "the strategy")
    for array in (problem.class_of_prompt, problem.timesteps, problem.weights):
        array.setflags(write=False)
    interview = Interview(Sample("made", 0, {}), checked, problem)
    requests = np.zeros(errors.shape, np.int64)
    while (request := interview.ask()) is not None:
        if isinstance(request, Evaluate):
            block = np.ix_(request.prompts, request.draws)
            requests[block] += 1
            interview.tell(request, errors[block])
        else:
            interview.tell(request, errors[:, request.draws], problem.linearisation_cost)
    return Told(interview.decided, requests)


class StrategyContract:
    """Subclass it, and say how your strategy is made."""

    decides = True  # whether it is meant to find a clear winner, and not only to look

    def make(self, draws: int) -> Any:
        """Return the strategy for plans of so many draws."""
        raise NotImplementedError

    @pytest.mark.parametrize("shape", [*SHAPES, LARGE_SHAPE])
    def test_every_shape_is_decided(self, shape: tuple[int, int, int]) -> None:
        """One class or many, several prompts per class, one draw; each cell is asked for once."""
        prompts, draws, per_class = shape
        errors = made_table(prompts, draws)
        problem = made_problem(errors, per_class)
        # The plan's draws may be more than the problem's: a classifier backbone has one.
        strategy = self.make(500)
        decision = decide(strategy, errors, problem)
        outcome, evaluations = decision.outcome, decision.decided.evaluations
        assert decision.asked.max() == 1 and decision.asked.sum() == evaluations
        best = problem.class_of_prompt == outcome.ranking[0]
        means = [
            float(errors[p][decision.asked[p] > 0].astype(np.float64).mean())
            for p in np.flatnonzero(best)
            if decision.asked[p].any()
        ]
        score = outcome.scores[outcome.ranking[0]]
        assert any(np.isclose(score, mean) for mean in means), "a score is the mean of its errors"

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("cell, null, linearisation", PRICES)
    def test_the_cost_is_within_its_bounds(
        self, shape: tuple[int, int, int], cell: int, null: int, linearisation: float
    ) -> None:
        """`at_most` and `at_least` hold at every price, with and without linearisations."""
        prompts, draws, per_class = shape
        strategy = self.make(500)
        checked = CheckedStrategy(strategy, "the strategy")
        for gap, can_linearise in product((0.0, 0.05), (False, True)):
            errors = made_table(prompts, draws, gap=gap)
            problem = made_problem(
                errors,
                per_class,
                can_linearise=can_linearise,
                cell_cost=cell,
                null_cost=null,
                linearisation_cost=linearisation,
            )
            cost = decide(strategy, errors, problem).decided.equivalents
            assert (checked.at_least(problem) or 0) - COST_ROUNDING <= cost
            assert cost <= checked.at_most(problem) + COST_ROUNDING

    def test_the_same_errors_give_the_same_decision(self) -> None:
        """On recorded errors a strategy is replayed; images are under way side by side."""
        strategy, errors = self.make(60), [made_table(8, 60, seed=s) for s in (1, 2)]
        first, other, again = (
            decide(strategy, e, made_problem(e)) for e in (errors[0], errors[1], errors[0])
        )
        assert np.array_equal(first.asked, again.asked)
        assert np.array_equal(first.outcome.ranking, again.outcome.ranking)
        np.testing.assert_array_equal(first.outcome.scores, again.outcome.scores)
        sessions = [
            Interview(Sample(str(i), 0, {}), CheckedStrategy(strategy, "s"), made_problem(e))
            for i, e in enumerate(errors)
        ]
        waiting = True
        while waiting:
            waiting = False
            for interview, table in zip(sessions, errors, strict=True):
                if (request := interview.ask()) is not None:
                    waiting = True
                    assert isinstance(request, Evaluate)
                    interview.tell(request, table[np.ix_(request.prompts, request.draws)])
        for interview, alone in zip(sessions, (first, other), strict=True):
            outcome = interview.decided.outcome
            assert outcome is not None, interview.decided.error
            np.testing.assert_array_equal(outcome.ranking, alone.outcome.ranking)

    @pytest.mark.parametrize("per_class", [1, 2])
    def test_ties_are_decided(self, per_class: int) -> None:
        """All errors are equal: nothing tells the prompts apart, and there still is an end."""
        errors = np.full((6, 30), 0.25, np.float32)
        decision = decide(self.make(30), errors, made_problem(errors, per_class))
        assert len(decision.outcome.ranking) == 6 // per_class

    @pytest.mark.parametrize("per_class", [1, 2])
    def test_a_clear_winner_wins(self, per_class: int) -> None:
        """Gaps of several standard errors, on twenty tables."""
        if not self.decides:
            pytest.skip("it is not meant to find a winner")
        for seed in range(20):
            errors = made_table(10, 100, seed=seed, gap=0.05)
            decision = decide(self.make(100), errors, made_problem(errors, per_class))
            assert decision.outcome.ranking[0] == errors.mean(axis=1).argmin() // per_class

    def test_weights_count(self) -> None:
        """With `--weighting`, the weighted mean decides, not the plain one."""
        if not self.decides:
            pytest.skip("it is not meant to find a winner")
        for seed in range(5):
            errors = made_table(6, 80, seed=seed, gap=0.0, noise=0.01)
            errors[2, ::2] -= 0.2  # the best where draws weigh much
            errors[4, 1::2] -= 0.6  # the best where they weigh little, and in the plain mean
            weights = np.where(np.arange(80) % 2, 0.02, 1.98)
            decision = decide(self.make(80), errors, made_problem(errors, weights=weights))
            assert decision.outcome.ranking[0] == 2

    def test_linearisations_are_used_only_where_there_are_any(self) -> None:
        """With them and without, there is a decision; `decide` refuses requests that cannot be."""
        errors = made_table(12, 50, gap=0.05)
        for can_linearise in (False, True):
            problem = made_problem(errors, can_linearise=can_linearise)
            decision = decide(self.make(50), errors, problem)
            assert can_linearise or decision.decided.linearisations == 0
