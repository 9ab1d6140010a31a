"""Our own strategies keep the contract that authors' strategies keep."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.tables import make

from bench.contracts.strategy import Strategy
from bench.discovery.loading import load_plugins
from bench.testing import StrategyContract

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "adaptive": [{"samples": (1, 60), "keep": (5, 1)}, {"samples": (3, 7, 60), "keep": (4, 2, 1)}],
    "uniform": [{"samples": 1}],
    "vote": [{"samples": 1}],
    "halving": [{"budget": 1}],
    "paired-ttest": [{"min_scores": 3, "cutoff": 0.05}],
    "race": [{"bound": "betting"}, {"ceiling": "published", "first": 2}, {"order": "300-500"}],
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
