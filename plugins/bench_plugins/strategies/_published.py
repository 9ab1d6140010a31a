"""Race within the schedule of Li et al. (ICCV 2023): the same draws, at no higher cost.

The schedule, by default `samples=50,500 keep=5,1` (see `adaptive`), evaluates all prompts on a
tenth of the draws, and the best five on the others. The race here is `ceiling=published` of the
strategy `race`. Its cost is no higher if replies cost what `Problem.price` says.

A look is the test after each round of draws. Dimensions: [P] all prompts, [A] those still alive,
the leader included, [N] draws.
"""

from __future__ import annotations

from math import ceil, pi

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Ints, Problem, Reply
from bench.inputs.draws import sub_grid
from bench_plugins.strategies._elimination import order_by_bands
from bench_plugins.strategies._racing import (
    LEARNED_DOF,
    RaceSession,
    RaceSettings,
    moderate,
    successive_variance,
)
from bench_plugins.strategies.adaptive import Adaptive

PRIOR_DOF = 16  # weight of the pooled variance, in degrees of freedom
MIN_TOTAL_DOF = 20  # total degrees of freedom before the t bound is first applied
MIN_STDERR = 1e-150  # so that a division by it does not overflow
BUDGET_ROUNDING = 1e-9  # evaluations; more than the rounding error of a sum of costs


def published_cost(problem: Problem) -> float:
    """Return the cost of the default schedule of `adaptive`, in evaluations."""
    return Adaptive(draws=len(problem.timesteps)).at_most(problem)


def first_stage_size(n_draws: int) -> int:
    """Return the number of draws in the first stage of the default schedule of `adaptive`."""
    return Adaptive(draws=n_draws).samples[0]


def staged_order(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws of the schedule's first stage, then the others.

    Within each stage, `bands` come first; see `order_by_bands`. `timesteps` [N] are ascending.
    """
    first = sub_grid(first_stage_size(len(timesteps)), len(timesteps))
    others = np.setdiff1d(np.arange(len(timesteps)), first)
    parts = [part[order_by_bands(bands, timesteps[part])] for part in (first, others) if len(part)]
    return np.concatenate(parts)


class PublishedSession(RaceSession):
    """One image's race in the two stages of the schedule.

    At the end of the first stage, the evaluations that the schedule has not spent yet, `budget`,
    determine how many survivors are kept: as many as can be evaluated on all other draws. If each
    reply costs what `Problem.price` says, these are at least the five of the schedule.

    `variances` [P] are the latest of each prompt's difference from the leader. Dropped prompts keep
    theirs, because they are often the ones with rare large errors; without them the pooled variance
    would be too small. `draws_for_dof` is the number of draws after which the P - 1 rivals of the
    start have `MIN_TOTAL_DOF` degrees of freedom together, draws - 1 each. `n_looks` counts the
    looks since then.
    """

    def __init__(self, settings: RaceSettings, problem: Problem) -> None:
        super().__init__(settings, problem, staged_order(settings.order, problem.timesteps))
        self.budget = published_cost(problem)
        self.first_stage_end = first_stage_size(len(self.order))
        self.variances = np.zeros(len(self.alive))
        self.draws_for_dof = 1 + ceil(MIN_TOTAL_DOF / max(1, len(self.alive) - 1))
        self.n_looks = 0
        self.budget_dropped = False

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Record the errors and their cost, and drop prompts; see `select_survivors`."""
        self.budget -= reply.cost
        super().tell(request, reply)

    def round_size(self) -> int:
        """Return the number of draws in the next round, which ends no later than its stage."""
        step = super().round_size()
        end = self.first_stage_end
        return min(step, end - self.seen) if self.seen < end else step

    def end_reason(self) -> str:
        """Return `ceiling` if the budget ruled out a prompt, otherwise what ended the race."""
        return "ceiling" if self.budget_dropped else super().end_reason()

    def select_survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: the prompts kept by the bound and, as the first stage ends, the budget.

        The budget keeps those with the lowest scores. Updates `n_looks`, `variances` and
        `budget_dropped`; the base class may set `tied`.
        """
        # `seen` counts draws, and the bound counts timesteps. With two draws per timestep, counting
        # starts early, which only makes the later shares of `delta` smaller.
        self.n_looks += self.seen >= self.draws_for_dof
        kept = super().select_survivors()
        if self.seen != self.first_stage_end or self.seen == len(self.order):
            return kept
        draws, problem = len(self.order) - self.seen, self.problem
        budget = self.budget - draws * problem.null_cost
        # At least 1, in case the replies cost more than `Problem.price`.
        affordable = max(1, int((budget + BUDGET_ROUNDING) // (draws * problem.cell_cost)))
        if kept.sum() > affordable:
            self.budget_dropped = True
            scores = np.where(kept, self.table.scores()[self.alive], np.inf)
            kept[np.argsort(scores, kind="stable")[affordable:]] = False
        return kept

    def find_worse(self, differences: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return bool [A], True for prompts unlikely to end ahead by `margin`; update `variances`.

        `differences` are those of each prompt from the leader, [A, draws seen]. The probability of
        a t distribution, times the number of rivals (a union bound), is compared with this look's
        share of `delta`.
        """
        from scipy.special import stdtr

        means = self.average_by_timestep(differences)
        n, deviation = means.shape[1], self.settings.deviation
        variance, dof = successive_variance(means)
        self.variances[self.alive] = variance
        if n < self.draws_for_dof:
            return np.zeros(len(differences), dtype=bool)
        measured = self.variances[self.variances > 0]
        if len(measured) > 1:
            variance, dof = moderate(variance, dof, float(measured.mean()), PRIOR_DOF)
        if deviation:
            variance, dof = moderate(variance, dof, deviation**2, LEARNED_DOF)
        fraction = n / len(self.timestep_ends)
        # 1 - fraction is the finite-population correction: the mean over all N draws is estimated,
        # and it is known exactly once they have all been seen.
        stderr = np.maximum(np.sqrt(variance * (1 - fraction) / n), MIN_STDERR)
        distance = (means.mean(axis=1) + margin) / stderr
        rivals = max(1, len(self.alive) - 1)
        share = 6 / (pi * self.n_looks) ** 2  # alpha spending: the shares of all looks add up to 1
        return np.asarray(rivals * stdtr(dof, -distance) < share * self.settings.delta)
