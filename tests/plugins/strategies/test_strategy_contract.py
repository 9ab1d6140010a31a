"""Our own strategies keep the contract that authors' strategies keep."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.tables import concluded, make, make_problem, make_table

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Strategy
from bench.discovery.loading import load_plugins
from bench.recordings.recording import Tables
from bench.recordings.replay import decide
from bench.testing import StrategyContract

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "adaptive": [{"samples": (1, 60), "keep": (5, 1)}, {"samples": (3, 7, 60), "keep": (4, 2, 1)}],
    "uniform": [{"samples": 1}],
    "vote": [{"samples": 1}],
    "halving": [{"budget": 1}],
    "paired-ttest": [{"min_scores": 3, "cutoff": 0.05}],
    "race": [
        *({"bound": "betting"}, {"ceiling": "published", "first": 2}, {"order": "300-500"}),
        {"first": 7, "delta": 0.3},
    ],
    "screen-race": [{"reach": 0.5, "samples": 1, "screens": 2}],
}
PUBLISHED = {"ceiling": "published", "first": 2}  # its first stage misses what the weights favour
TOO_FEW = [  # to find a winner
    ("uniform", {"samples": 1}),
    ("vote", {"samples": 1}),
    ("halving", {"budget": 1}),
    ("race", PUBLISHED),
]


def cases() -> list[Any]:
    return [
        pytest.param(spec.name, parameters, id=f"{spec.name}-{parameters}")
        for spec in load_plugins().strategies
        for parameters in [{}, *VARIANTS.get(spec.name, [])]
    ]


@pytest.mark.parametrize(("name", "parameters"), cases())
class TestOurs(StrategyContract):
    @pytest.fixture(autouse=True)
    def chosen(self, name: str, parameters: dict[str, Any]) -> None:
        self.name, self.parameters = name, parameters
        self.decides = (name, parameters) not in TOO_FEW

    def make(self, draws: int) -> Strategy:
        parameters = dict(self.parameters)
        if "samples" in parameters and isinstance(parameters["samples"], tuple):
            parameters["samples"] = tuple(min(n, draws) for n in parameters["samples"])
        elif self.name == "adaptive":
            parameters = {"samples": (min(10, draws), draws), "keep": (3, 1)}
        return make(self.name, draws, **parameters).strategy


def test_the_price_of_a_gradient_is_the_problems() -> None:
    problem = make_problem(make_table(10, 40), can_linearise=True, linearisation_cost=6.0)
    assert make("full-linearised", 40).at_most(problem) == 10 * 40 + 6 * 40
    cheap = replace(problem, linearisation_cost=1.5)
    assert make("screen-race", 40).at_least(cheap) == 1.5 * 4 + 4


def test_a_null_and_guidance_are_paid_for() -> None:
    problem = make_problem(np.zeros((4, 25), np.float32), cell_cost=2, null_cost=2)
    assert make("full", 25).at_most(problem) == 25 * (4 * 2 + 2)
    assert make("uniform", 25, samples=5).at_most(problem) == 5 * (4 * 2 + 2)
    # It may return to a draw, whose null is then paid for again.
    assert make("hierarchy", 25).at_most(problem) == 25 * 4 * (2 + 2)


def test_full_linearised_decides_as_full() -> None:
    errors = make_table(7, 30, gap=0.001)
    known = Tables(errors, [(np.full(7, 1 / 7), errors)], cost := 3.0)
    problem = make_problem(errors, can_linearise=True)
    one, other = (
        decide(Sample("x", 0, {}), known, make(name, 30), problem)
        for name in ("full", "full-linearised")
    )
    np.testing.assert_array_equal(concluded(one).scores, concluded(other).scores)
    assert other.linearisations == 30 and other.equivalents == one.equivalents + 30 * cost
