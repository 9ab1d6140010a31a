"""Pruning by a paired t-test (Clark & Jaini, NeurIPS 2023, algorithm 1)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Problem, Session, Strategy
from bench_plugins.strategies._elimination import Elimination, shuffle_draws


class PairedTTest(Strategy):
    """Clark & Jaini 2023: after each draw, drop prompts that are worse by a paired t-test.

    All surviving prompts are scored on one more draw. After `min_scores` draws, each is compared
    with the best prompt so far by Student's paired t-test (two-sided, as SciPy's `ttest_rel`), and
    dropped if p < `cutoff`. The published algorithm draws timesteps at random and stops at 2,000
    scores. This implementation uses the draws of the run in a random order and stops when they are
    used up. It tests after every draw without correcting for multiple tests, so `cutoff` does not
    bound the probability of a wrong decision.

    Args:
        min_scores: draws before the first test.
        cutoff: p-value below which a prompt is dropped.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "paired-ttest"}

    def __init__(self, min_scores: int = 20, cutoff: float = 2e-3, draws: int = 500) -> None:
        if min_scores < 2:
            raise ValueError(f"min_scores must be at least 2 for a t-test, got {min_scores}")
        if not 0 < cutoff < 1:
            raise ValueError(f"cutoff must be between 0 and 1, got {cutoff}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        self.min_scores, self.cutoff, self.draws = min_scores, cutoff, draws
        self.level = cutoff

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return three numbers of draws before the first test."""
        return [{"min_scores": n} for n in (5, 10, 20)]

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return PairedTTestSession(self.min_scores, self.cutoff, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the highest cost per image: every prompt on every draw."""
        return problem.price(len(problem.class_of_prompt), len(problem.timesteps))

    def at_least(self, problem: Problem) -> float:
        """Return the lowest cost per image, in evaluations: all prompts up to the first test."""
        draws = min(self.min_scores, len(problem.timesteps))
        return problem.price(len(problem.class_of_prompt), draws)


class PairedTTestSession(Elimination):
    """One image."""

    def __init__(self, min_scores: int, cutoff: float, problem: Problem) -> None:
        super().__init__(problem, shuffle_draws(len(problem.timesteps), problem.seed))
        self.min_scores, self.cutoff = min_scores, cutoff

    def round_size(self) -> int:
        """Return the number of draws up to the first test, then 1."""
        return max(1, self.min_scores - self.seen)

    def select_survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: the best prompt and those that do not differ significantly from it."""
        from scipy.special import stdtrit

        n = self.seen
        if n < max(2, min(self.min_scores, len(self.order))):
            return np.ones(len(self.alive), dtype=bool)
        errors = self.weighted_errors()
        difference = errors - errors[np.argmin(self.table.scores()[self.alive])]
        # Test |t| > t* for t = mean / sqrt(variance / n) without dividing, so that a constant
        # difference is significant unless it is zero.
        reach = stdtrit(n - 1, 1 - self.cutoff / 2) * np.sqrt(n * difference.var(axis=1, ddof=1))
        return np.asarray(np.abs(difference.sum(axis=1)) <= reach)
