"""Strategies that evaluate all prompts on the same draws in one request, such as `full`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from bench.contracts.draw_order import sub_grid
from bench.contracts.strategy import (
    ErrorTable,
    Evaluate,
    Floats,
    Linearise,
    Outcome,
    Problem,
    Reply,
    Session,
    Strategy,
)

VOTE_DECIMALS = 9  # sums of votes are rounded, so that sums of thirds compare equal


class OneBlock(Strategy):
    """Base of strategies that evaluate every prompt on the same draws, in one request.

    These are `samples` draws, spread evenly over all of them; a subclass sets the number.

    Args:
        draws: N, the draws of the plan.
    """

    same_draws = True

    def __init__(self, draws: int = 500) -> None:
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        self.draws = self.samples = draws

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return OneBlockSession(problem, self.samples, self.linearises)

    def at_most(self, problem: Problem) -> float:
        """Return the exact cost per image, in evaluations, including linearisations."""
        draws = min(self.samples, len(problem.timesteps))
        linearised = draws if self.linearises and problem.can_linearise else 0
        cost = problem.price(len(problem.class_of_prompt), draws)
        return cost + linearised * problem.linearisation_cost


class OneBlockSession:
    """One image, decided by a single request for all prompts on evenly spread draws.

    With `linearises`, these draws are first linearised at the mean of the prompts, if possible.
    """

    def __init__(self, problem: Problem, samples: int, linearises: bool = False) -> None:
        self.table, self.draws = ErrorTable(problem), sub_grid(samples, len(problem.timesteps))
        prompts = len(problem.class_of_prompt)
        requests: list[Evaluate | Linearise] = [Evaluate(np.arange(prompts), self.draws)]
        if linearises and problem.can_linearise:
            requests.insert(0, Linearise(self.draws, np.full(prompts, 1 / prompts)))
        self.requests = iter(requests)

    def ask(self) -> Evaluate | Linearise | None:
        """Return the next request, or None when the image is decided."""
        return next(self.requests, None)

    def tell(self, request: Evaluate | Linearise, reply: Reply) -> None:
        """Record the errors; the reply to a linearisation is not used."""
        if isinstance(request, Evaluate):
            self.table.tell(request, reply)

    def outcome(self) -> Outcome:
        """Rank the classes by score."""
        return self.table.outcome()


class Uniform(OneBlock):
    """Every prompt on the same few draws, spread evenly over all of them.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(Uniform(samples=8, draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 1, 4, 0], 40)

    Args:
        samples: draws per prompt, a sub-grid of the plan; None for 50, or all if there are fewer.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "uniform"}

    def __init__(self, samples: int | None = None, draws: int = 500) -> None:
        super().__init__(draws)
        self.samples = min(50, draws) if samples is None else samples
        if not 1 <= self.samples <= draws:
            raise ValueError(f"samples must be between 1 and draws={draws}, got {samples}")
        self.settled = {"samples": self.samples}

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return powers of two below the number of draws."""
        return [{"samples": n} for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n < n_draws]


class Full(OneBlock):
    """Every prompt on every draw: the decision that other strategies approximate.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(Full(draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 1, 0, 4], 200)
    """

    spec: ClassVar[dict[str, Any]] = {"name": "full", "exhaustive": True}

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the strategy itself, without other parameters."""
        return [{}]


class FullTree(OneBlock):
    """The full sweep, also of the inner nodes of a tree: record it to replay hierarchy.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(FullTree(draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 1, 0, 4], 200)

    The inner nodes do not influence the decision. With `--save-errors` their errors are recorded
    together with those of the classes, so that `hierarchy` can be replayed.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "full-hierarchy"}
    uses_hierarchy = True


class FullLinearised(OneBlock):
    """The full sweep, with every draw linearised at the mean of the prompts: to replay screening.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(FullLinearised(draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 1, 0, 4], 200)

    If the backbone cannot linearise, it does the same as `full`. The linearisations do not
    influence the decision. With `--save-errors` they are recorded together with the errors, so that
    strategies that screen can be replayed.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "full-linearised"}
    linearises = True


class Vote(Uniform):
    """Every prompt on every draw; each draw votes for its best class, and most votes win.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(Vote(draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 1, 0, 4], 200)

    After Favero et al. (arXiv 2502.03687, 2025). A vote counts as much as its draw's weight, and
    classes with the same lowest error on a draw share its vote equally. Classes with equally many
    votes are ordered by score, the mean error, and then by prompt index. `decided_by` is `tie` if
    the first place was decided in this way.

    Args:
        samples: draws that vote, spread evenly; None for all of them.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "vote"}
    same_draws = False  # which would also promise that the lowest score wins

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
        _, rank = np.unique(votes, return_inverse=True)  # rises with the votes; equal if they are
        tied = (votes == votes.max()).sum() > 1
        # What survived longest is ranked first, before scores count: here, what has more votes.
        outcome = self.table.outcome(survived=rank[self.table.problem.class_of_prompt])
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
