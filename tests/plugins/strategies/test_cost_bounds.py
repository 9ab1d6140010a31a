"""What a strategy says that an image costs at the most and at the least holds at every price."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.matrix import matrix
from helpers.tables import make, make_problem, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.testing.strategies import COST_ROUNDING, decide

PARAMETERS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "uniform": st.fixed_dictionaries({"samples": st.integers(1, 8)}),
    "vote": st.fixed_dictionaries({"samples": st.integers(1, 8)}),
    "halving": st.fixed_dictionaries({"budget": st.integers(1, 8)}),
    "adaptive": st.sampled_from([{}, {"samples": (1, 5, 8), "keep": (6, 2, 1)}]),
    "paired-ttest": st.fixed_dictionaries(
        {"min_scores": st.integers(2, 9), "cutoff": st.just(0.2)}
    ),
    "race": st.fixed_dictionaries(
        {
            "first": st.integers(2, 9),
            "delta": st.sampled_from([0.001, 0.3]),
            "ceiling": st.none() | st.just("published"),
        }
    )
    | st.just({"bound": "betting"}),
    "screen-race": st.fixed_dictionaries(
        {
            "reach": st.floats(0, 3),
            "samples": st.integers(1, 8),
            "screens": st.integers(1, 2),
        }
    ),
}


@pytest.mark.parametrize(
    "name",
    matrix(names := [spec.name for spec in load_plugins().strategies], {*names} - {"screen-race"}),
)
@settings(deadline=None)
@given(data=st.data())
def test_a_cost_lies_within_the_bounds_of_its_strategy(name: str, data: st.DataObject) -> None:
    """Over parameters, shapes, prices of cells, nulls and gradients, and pairs of draws."""
    parameters = data.draw(PARAMETERS.get(name, st.just({})))
    prompts, draws = data.draw(st.integers(1, 12)), data.draw(st.integers(8, 40))
    errors = make_table(
        prompts,
        draws,
        seed=data.draw(st.integers(0, 99)),
        gap=data.draw(st.sampled_from([0.0, 0.02, 0.5])),
    )
    problem = replace(
        make_problem(errors, per_class=data.draw(st.integers(1, 3))),
        can_linearise=data.draw(st.booleans()),
        cell_cost=data.draw(st.integers(1, 4)),
        null_cost=data.draw(st.integers(0, 2)),
        linearisation_cost=data.draw(st.floats(0.5, 9)),
    )
    if data.draw(st.booleans()):  # two draws per level, as of antithetic noise
        problem = replace(problem, timesteps=problem.timesteps // 100 * 100)
    strategy = make(name, draws, **parameters)
    try:
        strategy.check(problem)
    except UserError:
        return  # the ceiling does not pay for each prompt
    cost = decide(strategy.strategy, errors, problem).decided.equivalents
    least, most = strategy.at_least(problem), strategy.at_most(problem)
    assert (0 if least is None else least) - COST_ROUNDING <= cost <= most + COST_ROUNDING


def test_the_price_of_a_gradient_is_the_problems() -> None:
    errors = make_table(10, 40, gap=0.5)
    problem = replace(make_problem(errors), can_linearise=True, linearisation_cost=6.0)
    assert make("full-linearised", 40).at_most(problem) == 10 * 40 + 6 * 40
    cheap = replace(problem, linearisation_cost=1.5)
    assert make("screen-race", 40).at_least(cheap) == 1.5 * 4 + 4


def test_a_null_and_guidance_are_paid_for() -> None:
    problem = replace(make_problem(np.zeros((4, 25), np.float32)), cell_cost=2, null_cost=2)
    assert make("full", 25).at_most(problem) == 25 * (4 * 2 + 2)
    assert make("uniform", 25, samples=5).at_most(problem) == 5 * (4 * 2 + 2)
    assert make("paired-ttest", 25).at_most(problem) == 25 * (4 * 2 + 2)
    # It may return to a draw, whose null is then paid for again.
    assert make("hierarchy", 25).at_most(problem) == 25 * 4 * (2 + 2)
