"""The contract of strategies, as tests on random tables of errors."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Any

import numpy as np
import pytest

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Evaluate, Floats32, Ints, Outcome, Problem
from bench.engine.asking import CheckedSession, CheckedStrategy
from bench.errors import UserError

# Number of prompts, of draws, and of prompts per class.
SHAPES = [(10, 40, 1), (12, 40, 3), (3, 1, 1), (2, 1, 1), (1, 20, 1), (4, 9, 4), (2, 30, 1)]
LARGE_SHAPE = (1000, 12, 1)
# Cost in evaluations of a cell, of the null prompt per draw, and of a linearised draw.
PRICES = [(1, 0, 3.0), (2, 0, 1.5), (1, 1, 6.0), (4, 2, 0.5)]
COST_ROUNDING = 1e-6  # tolerance for rounding in sums of costs


def made_table(
    prompts: int, draws: int, seed: int = 0, gap: float = 0.01, noise: float = 0.02
) -> Floats32:
    """Return random errors of prompts on draws, float32 [prompts, draws].

    An error is the sum of the draw's error, which all prompts share, the prompt's mean, and noise
    with standard deviation `noise`. The mean of one random prompt is 0; those of the others are at
    least `gap`.
    """
    rng = np.random.default_rng(seed)
    means = gap * rng.uniform(1, 4, size=(prompts, 1))
    means[rng.integers(prompts)] = 0
    shared = np.linspace(0.8, 0.1, draws) + 0.1 * rng.standard_normal(draws)
    own = noise * rng.standard_normal((prompts, draws))
    return np.asarray(shared + means + own, np.float32)


def made_problem(errors: Floats32, per_class: int = 1, **fields: Any) -> Problem:
    """Return the problem of a table of errors [prompts, draws], with draws on 1,000 levels.

    `per_class` is the number of prompts per class; `fields` override those of the problem.
    """
    prompts, draws = errors.shape
    levels = (2 * np.arange(draws) + 1) * 1000 // (2 * draws)
    return Problem(np.arange(prompts) // per_class, levels, **{"weights": np.ones(draws), **fields})


@dataclass
class Told:
    """The decision of a strategy on a table of errors."""

    decided: Decided
    asked: Ints  # number of times that each cell was requested, [prompts, draws]

    @property
    def outcome(self) -> Outcome:
        """The outcome; raises an AssertionError if the strategy failed."""
        assert self.decided.outcome is not None, self.decided.error
        return self.decided.outcome


def decide(strategy: object, errors: Floats32, problem: Problem) -> Told:
    """Let a strategy decide on a table of errors, float32 [prompts, draws].

    Requests and the outcome are validated as in a run. A linearisation is answered with the errors
    of all prompts.
    """
    *_, decision = _turns(strategy, errors, problem)
    return decision


def _turns(strategy: object, errors: Floats32, problem: Problem) -> Iterator[Told]:
    """Yield the same object before the first request and after each reply; see `decide`."""
    checked = CheckedStrategy(strategy, "the strategy")
    session = CheckedSession(Sample("made", 0, {}), checked, problem)
    decision = Told(session.decided, np.zeros(errors.shape, np.int64))
    yield decision
    while (request := session.ask()) is not None:
        if isinstance(request, Evaluate):
            block = request.prompts[:, None], request.draws
            decision.asked[block] += 1
            session.tell(request, errors[block])
        else:
            session.tell(request, errors[:, request.draws], problem.linearisation_cost)
        yield decision


class StrategyContract:
    """Tests of a strategy; subclass it and define `make`."""

    decides = True  # whether the strategy is meant to find a clear winner

    def make(self, draws: int) -> Any:
        """Return the strategy for plans of `draws` draws."""
        raise NotImplementedError

    @pytest.mark.parametrize("shape", [*SHAPES, LARGE_SHAPE])
    def test_every_shape_is_decided(self, shape: tuple[int, int, int]) -> None:
        """Problems of every shape are decided, and no cell is requested twice."""
        prompts, draws, per_class = shape
        errors = made_table(prompts, draws)
        problem = made_problem(errors, per_class)
        # A plan may have more draws than the problem; a classifier backbone has only one.
        decision = decide(self.make(500), errors, problem)
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
        """The cost is between `at_least` and `at_most` at all prices."""
        prompts, draws, per_class = shape
        strategy = self.make(500)
        checked = CheckedStrategy(strategy, "the strategy")
        prices = {"cell_cost": cell, "null_cost": null, "linearisation_cost": linearisation}
        for gap, can_linearise in product((0.0, 0.05), (False, True)):
            errors = made_table(prompts, draws, gap=gap)
            problem = made_problem(errors, per_class, can_linearise=can_linearise, **prices)
            cost = decide(strategy, errors, problem).decided.equivalents
            assert (checked.at_least(problem) or 0) - COST_ROUNDING <= cost
            assert cost <= checked.at_most(problem) + COST_ROUNDING

    def test_the_same_errors_give_the_same_decision(self) -> None:
        """Decisions are deterministic and independent of other images decided at the same time."""
        strategy, errors = self.make(60), [made_table(8, 60, seed=s) for s in (1, 2)]
        order = (errors[0], errors[1], errors[0])
        first, other, again = (decide(strategy, e, made_problem(e)) for e in order)
        assert np.array_equal(first.asked, again.asked)
        assert np.array_equal(first.outcome.ranking, again.outcome.ranking)
        np.testing.assert_array_equal(first.outcome.scores, again.outcome.scores)
        sessions = [_turns(strategy, e, made_problem(e)) for e in errors]
        together = [next(session) for session in sessions]
        for _ in zip_longest(*sessions):  # a request of each in turn
            pass
        for decision, alone in zip(together, (first, other), strict=True):
            np.testing.assert_array_equal(decision.outcome.ranking, alone.outcome.ranking)

    @pytest.mark.parametrize("per_class", [1, 2])
    def test_ties_are_decided(self, per_class: int) -> None:
        """The strategy ends even if all errors are equal."""
        errors = np.full((6, 30), 0.25, np.float32)
        decision = decide(self.make(30), errors, made_problem(errors, per_class))
        assert len(decision.outcome.ranking) == 6 // per_class

    @pytest.mark.parametrize("per_class", [1, 2])
    def test_a_clear_winner_wins(self, per_class: int) -> None:
        """A prompt that is better by several standard errors wins, on twenty tables."""
        if not self.decides:
            pytest.skip("the strategy is not meant to find a winner")
        for seed in range(20):
            errors = made_table(10, 100, seed=seed, gap=0.05)
            decision = decide(self.make(100), errors, made_problem(errors, per_class))
            assert decision.outcome.ranking[0] == errors.mean(axis=1).argmin() // per_class

    def test_weights_count(self) -> None:
        """With `--weighting`, the weighted mean of the errors decides."""
        if not self.decides:
            pytest.skip("the strategy is not meant to find a winner")
        for seed in range(5):
            errors = made_table(6, 80, seed=seed, gap=0.0, noise=0.01)
            errors[2, ::2] -= 0.2  # best on draws with a large weight
            errors[4, 1::2] -= 0.6  # best on draws with a small weight, and in the plain mean
            weights = np.where(np.arange(80) % 2, 0.02, 1.98)
            decision = decide(self.make(80), errors, made_problem(errors, weights=weights))
            assert decision.outcome.ranking[0] == 2

    def test_settings_are_learned_from_the_statistics_of_images(self) -> None:
        """`learn` returns the same settings by name whenever it gets the same statistics."""
        checked, statistics = CheckedStrategy(self.make(60), "the strategy"), []
        for seed in range(24):
            errors = made_table(8, 60, seed=seed)
            problem = made_problem(errors, can_linearise=True, linearisation_cost=2.0)
            table = errors.astype(np.float64)
            statistics.append(checked.statistics(problem, table, table))
        try:
            learned = checked.learn(statistics)
        except UserError as error:
            pytest.skip(str(error))
        assert learned == checked.learn(statistics)
        assert all(name and setting for name, setting in learned.items())

    def test_linearisations_are_used_only_where_there_are_any(self) -> None:
        """The strategy decides with and without linearisations, requested only if allowed."""
        errors = made_table(12, 50, gap=0.05)
        for can_linearise in (False, True):
            problem = made_problem(errors, can_linearise=can_linearise)
            decision = decide(self.make(50), errors, problem)
            assert can_linearise or decision.decided.linearisations == 0
