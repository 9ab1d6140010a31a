"""Plurality vote of the draws (Favero et al., arXiv 2502.03687, 2025)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from bench.contracts.strategy import Floats, Outcome, Problem, Session
from bench_plugins.strategies.full import OneBlockSession, Uniform

VOTE_DECIMALS = 9  # sums of votes are rounded, so that sums of thirds compare equal


class Vote(Uniform):
    """Every prompt on every draw; each draw votes for its best class, and most votes win.

    A vote counts as much as its draw's weight. Classes with the same lowest error on a draw share
    its vote equally. Classes with equally many votes are ordered by score, the mean error, and then
    by prompt index. `decided_by` is `tie` if the first place was decided in this way.

    Args:
        samples: draws that vote, spread evenly; None for all of them.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "vote"}
    same_draws = False  # the lowest score does not decide

    def __init__(self, samples: int | None = None, draws: int = 500) -> None:
        super().__init__(draws if samples is None else samples, draws)

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return all draws, and up to three smaller numbers of them."""
        return [{}, *({"samples": n} for n in (4, 16, 64) if n < n_draws)]

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return VoteSession(problem, self.samples)


class VoteSession(OneBlockSession):
    """One image, decided by the votes of the draws in one block."""

    def outcome(self) -> Outcome:
        """Rank the classes by votes, then by score."""
        votes = self.votes()
        _, rank = np.unique(votes, return_inverse=True)
        tied = (votes == votes.max()).sum() > 1
        outcome = self.table.outcome(rank[self.table.problem.class_of_prompt])
        return replace(outcome, decided_by="tie" if tied else "exhausted")

    def votes(self) -> Floats:
        """Return float64 [C], the votes of each class, where a draw of mean weight has one vote."""
        problem = self.table.problem
        errors, weights = self.table.errors[:, self.draws], problem.weights[self.draws]
        best = np.zeros((problem.n_classes, len(self.draws)), dtype=bool)
        np.logical_or.at(best, problem.class_of_prompt, errors == errors.min(axis=0))
        shares = best / best.sum(axis=0)
        votes: Floats = np.round(shares @ (weights / weights.mean()), VOTE_DECIMALS)
        return votes
