"""What strategies that drop prompts have in common."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import (
    ErrorTable,
    Evaluate,
    Floats,
    Ints,
    Linearise,
    Outcome,
    Problem,
    Reply,
)


class Elimination:
    """One image whose surviving prompts have all seen the same draws, a prefix of `order`.

    `wanted` says how many draws come next, and `survivors` which prompts stay. The image is decided
    when all survivors are prompts of one class, or when the draws are used up: then the lowest
    score over all draws wins, which is the exhaustive decision among the survivors.

    Attributes:
        alive: int64 [A], the surviving prompts, ascending.
        seen: how many draws of `order` they have.
    """

    def __init__(self, problem: Problem, order: Ints) -> None:
        self.problem = problem
        self.order = order
        self.table = ErrorTable(problem)
        self.alive = np.arange(len(problem.class_of_prompt))
        self.seen = 0

    def wanted(self) -> int:
        """Return how many draws to ask for next, at least one."""
        raise NotImplementedError

    def survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: which of `alive` survive the draws seen so far."""
        raise NotImplementedError

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws."""
        classes = self.problem.class_of_prompt[self.alive]
        if self.seen and (self.seen == len(self.order) or (classes == classes[0]).all()):
            return None
        return Evaluate(self.alive, self.order[self.seen : self.seen + self.wanted()])

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Take the errors and drop prompts that cannot win."""
        self.table.tell(request, reply)
        self.seen += len(request.draws)
        self.alive = self.alive[self.survivors()]

    def outcome(self) -> Outcome:
        """Rank by the number of draws (how long a prompt survived), then by score."""
        return self.table.outcome(self.table.draws())

    def terms(self, as_drawn: bool = False) -> Floats:
        """Return float64 [A, n]: the survivors' weighted errors on the draws seen.

        Their mean orders the prompts as their scores do.

        Args:
            as_drawn: in the order of the draws; else in the order of the timesteps.
        """
        seen = self.order[: self.seen]
        seen = seen if as_drawn else np.sort(seen)
        return self.table.errors[np.ix_(self.alive, seen)] * self.problem.weights[seen]
