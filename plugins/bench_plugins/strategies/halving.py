"""Sequential halving on a fixed budget (Karnin, Koren & Somekh, ICML 2013, algorithm 3)."""

from collections.abc import Mapping
from math import ceil, log2
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Problem, Session, Strategy
from bench.inputs.draws import even_order
from bench_plugins.strategies._elimination import Elimination


class Halving(Strategy):
    """Sequential halving: spend an equal share of a fixed budget per round, keep the better half.

    There are ceil(log2 P) rounds for P prompts, each of at least one draw, so a budget below the
    number of rounds is exceeded. Unlike in the published algorithm, a score is the
    mean over the draws of all rounds so far, because the draws are shared and forgetting them
    gains nothing. The draws are in a nested, even order.

    Args:
        budget: evaluations per image divided by the number of prompts, which is the number of
            draws of `uniform` at the same cost; None for 40, or all draws if there are fewer.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "halving"}

    def __init__(self, budget: int | None = None, draws: int = 500) -> None:
        budget = min(40, draws) if budget is None else budget
        if not 1 <= budget <= draws:
            raise ValueError(f"budget must be between 1 and draws={draws}, got {budget}")
        self.budget, self.draws = budget, draws
        self.settled = {"budget": budget}

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return powers of two below the number of draws."""
        return [{"budget": n} for n in (2, 4, 8, 16, 32, 64, 128, 256) if n < n_draws]

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return HalvingSession(self.budget, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the cost per image, in evaluations, if no class has several prompts.

        Otherwise it is an upper bound, because a session ends once one class is left.
        """
        prompts = alive = len(problem.class_of_prompt)
        seen, total = 0, 0.0
        while seen < len(problem.timesteps) and (alive > 1 or not seen):
            step = min(_round_size(self.budget, prompts, alive), len(problem.timesteps) - seen)
            seen, total, alive = seen + step, total + problem.price(alive, step), ceil(alive / 2)
        return total


class HalvingSession(Elimination):
    """One image, whose prompts are halved in each round."""

    def __init__(self, budget: int, problem: Problem) -> None:
        super().__init__(problem, even_order(len(problem.timesteps)))
        self.budget = budget

    def round_size(self) -> int:
        """Return the number of draws that an equal share of the budget pays for."""
        return _round_size(self.budget, len(self.problem.class_of_prompt), len(self.alive))

    def select_survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: the better half; ties go to the lower prompt index."""
        return self.best(ceil(len(self.alive) / 2))


def _round_size(budget: int, prompts: int, alive: int) -> int:
    """Return the draws that an equal share of the budget buys for the survivors, at least 1."""
    rounds = max(1, ceil(log2(prompts)))
    return max(1, budget * prompts // (rounds * alive))
