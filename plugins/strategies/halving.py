"""Sequential halving on a fixed budget (Karnin, Koren & Somekh, ICML 2013, algorithm 3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Problem, Strategy
from bench.inputs.draws import even_order
from bench_plugins.strategies._elimination import Elimination


class Halving(Strategy):
    """Spend an equal share of the budget in each round, and keep the better half of the prompts.

    There are ceil(log2 P) rounds for P prompts. Unlike the published algorithm, a score is the
    mean over the draws of all rounds so far: the draws are shared, so forgetting them
    gains nothing. The draws come in a nested, even order.

    Args:
        budget: evaluations per image, divided by the number of prompts: the number of draws
            that `uniform` takes at the same cost; None: 40, or the draws where there are fewer.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "halving",
        "summary": "sequential halving: keep the better half in each round, on a fixed budget",
    }

    def __init__(self, budget: int | None = None, draws: int = 500) -> None:
        budget = min(40, draws) if budget is None else budget
        if not 1 <= budget <= draws:
            raise ValueError(f"budget={budget} must lie between 1 and draws={draws}")
        self.budget, self.draws = budget, draws
        self.settled = {"budget": budget}

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return powers of two below the draws."""
        return [{"budget": n} for n in (2, 4, 8, 16, 32, 64, 128, 256) if n < n_draws]

    def start(self, problem: Problem) -> HalvingSession:
        """Start one image."""
        return HalvingSession(self.budget, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the largest cost per image, in evaluations."""
        alive, seen, total = len(problem.class_of_prompt), 0, 0.0
        rounds = _rounds(alive)
        while seen < len(problem.timesteps) and (alive > 1 or not seen):
            fresh = _share(self.budget, len(problem.class_of_prompt), rounds, alive)
            fresh = min(fresh, len(problem.timesteps) - seen)
            seen, total, alive = seen + fresh, total + problem.price(alive, fresh), ceil(alive / 2)
        return total


class HalvingSession(Elimination):
    """One image in one of the rounds."""

    def __init__(self, budget: int, problem: Problem) -> None:
        super().__init__(problem, even_order(len(problem.timesteps)))
        self.budget = budget
        self.prompts = len(self.alive)

    def wanted(self) -> int:
        """Return the round's share of the budget, in draws."""
        return _share(self.budget, self.prompts, _rounds(self.prompts), len(self.alive))

    def survivors(self) -> NDArray[np.bool_]:
        """Keep the better half; ties go to the lower prompt index."""
        order = np.argsort(self.table.scores()[self.alive], kind="stable")
        keep = np.zeros(len(order), dtype=bool)
        keep[order[: ceil(len(order) / 2)]] = True
        return keep


def _rounds(prompts: int) -> int:
    return max(1, ceil(log2(prompts)))


def _share(budget: int, prompts: int, rounds: int, alive: int) -> int:
    return max(1, budget * prompts // (rounds * alive))
