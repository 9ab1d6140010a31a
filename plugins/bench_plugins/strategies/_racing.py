"""One image's race: evaluate the surviving prompts on a few more draws, drop those that are worse.

The test after each round of draws is called a look, as in sequential analysis; `_bounds` has the
tests. Dimensions: [A] prompts still alive, the leader included, [N] draws.

`PublishedSession` races within the schedule of Li et al. (ICCV 2023), by default `samples=50,500
keep=5,1` (see `adaptive`): all prompts on a tenth of the draws, and the best five on the others. A
race costs no more than this schedule if replies cost what `Problem.price` says.
"""

from dataclasses import replace

import numpy as np

from bench.contracts.strategy import Bools, DecidedBy, Evaluate, Linearise, Outcome, Problem, Reply
from bench_plugins.strategies._bounds import (
    BOUNDS,
    RaceBound,
    RaceSettings,
    ScheduleBound,
    first_stage_size,
)
from bench_plugins.strategies.elimination import Adaptive, Elimination

GROWTH = 8  # each round adds at least 1 / 8 of the draws seen, so that few looks are needed
BUDGET_ROUNDING = 1e-9  # evaluations; more than the rounding error of a sum of costs


class RaceSession(Elimination):
    """One image's race.

    `bound` is its test, which also orders the draws. `tie` is the setting of that name, converted
    to the units of `weighted_errors`; the race has `tied` if no survivor of another class can be
    better than the leader by more than that.
    """

    def __init__(
        self, settings: RaceSettings, problem: Problem, bound: RaceBound | None = None
    ) -> None:
        self.bound = bound or BOUNDS[settings.bound](settings, problem)
        super().__init__(problem, self.bound.order)
        self.first = settings.first
        self.tie = settings.tie * float(problem.weights.mean())
        self.tied = False

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws, or None when the image is decided."""
        return None if self.tied else super().ask()

    def first_look_cost(self, prompts: int) -> float:
        """Return the cost of evaluating that many prompts up to the first look, in evaluations."""
        return self.problem.price(prompts, min(self.round_size(), len(self.order)))

    def outcome(self) -> Outcome:
        """Rank the classes, and record what ended the race."""
        return replace(super().outcome(), decided_by=self.end_reason())

    def end_reason(self) -> DecidedBy:
        """Return what ended the race; see `Outcome.decided_by`."""
        if self.tied:
            return "tie"
        return "bound" if self.has_winner() else "exhausted"

    def round_size(self) -> int:
        """Return the number of draws in the next round."""
        draws = max(1, self.seen // GROWTH) if self.seen else self.first
        return self.bound.round_end(self.seen + draws) - self.seen

    def select_survivors(self) -> Bools:
        """Return bool [A]: the leader, and the prompts that are not significantly worse.

        All survive if there are too few draws for a bound, or after the last draw. May set `tied`.
        """
        if self.seen < self.bound.min_draws or self.seen == len(self.order):
            return np.ones(len(self.alive), dtype=bool)
        errors = self.weighted_errors(as_drawn=self.bound.as_drawn)
        leader = int(np.argmin(errors.mean(axis=1)))
        self.bound.look(errors - errors[leader], self.alive)
        worse = self.bound.worse()
        worse[leader] = False
        if self.tie:
            classes = self.problem.class_of_prompt[self.alive]
            rivals = ~worse & (classes != classes[leader])
            hardly_better = self.bound.worse(margin=self.tie)  # at most `tie` better
            self.tied = bool(rivals.any() and hardly_better[rivals].all())
        return ~worse


def published_cost(problem: Problem) -> float:
    """Return the cost of the default schedule of `adaptive`, in evaluations."""
    return Adaptive(draws=len(problem.timesteps)).at_most(problem)


class PublishedSession(RaceSession):
    """One image's race in the two stages of the schedule.

    At the end of the first stage, the evaluations that the schedule has not spent yet, `budget`,
    determine how many survivors are kept: as many as can be evaluated on all other draws. If each
    reply costs what `Problem.price` says, these are at least the five of the schedule.
    """

    def __init__(self, settings: RaceSettings, problem: Problem) -> None:
        super().__init__(settings, problem, ScheduleBound(settings, problem))
        self.budget = published_cost(problem)
        self.first_stage_end = first_stage_size(len(self.order))
        self.budget_dropped = False

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Record the errors and their cost, and drop prompts; see `select_survivors`."""
        self.budget -= reply.cost
        super().tell(request, reply)

    def round_size(self) -> int:
        """Return the number of draws in the next round, which ends no later than its stage."""
        draws, left = super().round_size(), self.first_stage_end - self.seen
        return min(draws, left) if left > 0 else draws

    def end_reason(self) -> DecidedBy:
        """Return `ceiling` if the budget ruled out a prompt, otherwise what ended the race."""
        return "ceiling" if self.budget_dropped else super().end_reason()

    def select_survivors(self) -> Bools:
        """Return bool [A]: the prompts kept by the bound and, as the first stage ends, the budget.

        The budget keeps those with the lowest scores, and sets `budget_dropped`.
        """
        kept = super().select_survivors()
        if self.seen != self.first_stage_end or self.seen == len(self.order):
            return kept
        draws, problem = len(self.order) - self.seen, self.problem
        budget = self.budget - draws * problem.null_cost + BUDGET_ROUNDING
        # At least 1, in case the replies cost more than `Problem.price`.
        affordable = max(1, int(budget // (draws * problem.cell_cost)))
        if kept.sum() > affordable:
            self.budget_dropped = True
            scores = np.where(kept, self.table.scores()[self.alive], np.inf)
            kept[np.argsort(scores, kind="stable")[affordable:]] = False
        return kept
