"""The exhaustive sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from bench.contracts.strategy import (
    ErrorTable,
    Evaluate,
    Ints,
    Linearise,
    Outcome,
    Problem,
    Reply,
    Session,
    Strategy,
)


class Full(Strategy):
    """Every prompt on every draw: the decision that other strategies approximate for less.

    Args:
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "full",
        "summary": "every prompt on every draw",
        "exhaustive": True,
    }
    same_draws = True

    def __init__(self, draws: int = 500) -> None:
        if draws < 1:
            raise ValueError(f"draws={draws}: at least one draw is needed")
        self.draws = draws

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return itself as it is."""
        return [{}]

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return OneBlock(problem, np.arange(len(problem.timesteps)))

    def at_most(self, problem: Problem) -> float:
        """Return the cost per image, in evaluations."""
        return problem.price(len(problem.class_of_prompt), len(problem.timesteps))


class OneBlock:
    """One block: all prompts on some draws."""

    def __init__(self, problem: Problem, draws: Ints) -> None:
        self.table, self.draws = ErrorTable(problem), draws
        self.requested = False

    def ask(self) -> Evaluate | None:
        """Return the block, once."""
        if self.requested:
            return None
        self.requested = True
        return Evaluate(np.arange(len(self.table.errors)), self.draws)

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Take the errors."""
        self.table.tell(request, reply)

    def outcome(self) -> Outcome:
        """Rank the classes by score."""
        return self.table.outcome()


class FullTree(Full):
    """The exhaustive decision, with every inner node's prompt on every draw as well.

    The inner nodes do not influence the decision. With `--save-errors` they are recorded beside the
    classes, so that `hierarchy` can be replayed.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "full-hierarchy",
        "summary": "full, with the inner nodes of a tree too: record it to replay hierarchy",
    }
    uses_hierarchy = True

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return none: it decides as `full` does."""
        return []


class FullLinearised(Full):
    """The exhaustive decision, with every draw linearised at the mean of the prompts.

    The linearisations do not influence the decision. With `--save-errors` they are recorded beside
    the errors, so that strategies that screen can be replayed.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "full-linearised",
        "summary": "full, with every draw linearised too: record it to replay screening",
    }
    linearises = True

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return none: it decides as `full` does."""
        return []

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return FullLinearisedSession(problem)

    def at_most(self, problem: Problem) -> float:
        """Return the cost per image, in evaluations, with that of the linearisations."""
        linearised = len(problem.timesteps) if problem.can_linearise else 0
        return super().at_most(problem) + linearised * problem.linearisation_cost


class FullLinearisedSession:
    """One linearisation of all draws, then the block of all cells."""

    def __init__(self, problem: Problem) -> None:
        self.full = OneBlock(problem, np.arange(len(problem.timesteps)))
        self.linearised = not problem.can_linearise

    def ask(self) -> Evaluate | Linearise | None:
        """Return the linearisation, the cells, None."""
        if self.linearised:
            return self.full.ask()
        prompts, draws = self.full.table.errors.shape
        return Linearise(np.arange(draws), np.full(prompts, 1 / prompts))

    def tell(self, request: Evaluate | Linearise, reply: Reply) -> None:
        """Take the errors; what the linearisation says decides nothing."""
        if isinstance(request, Linearise):
            self.linearised = True
        else:
            self.full.tell(request, reply)

    def outcome(self) -> Outcome:
        """Rank the classes by score."""
        return self.full.outcome()
