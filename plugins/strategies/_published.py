"""A race within the published schedule: never dearer, and on its draws."""

from __future__ import annotations

from math import ceil, pi

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Ints, Problem, Reply
from bench.inputs.draws import sub_grid
from bench_plugins.strategies._bounds import LEARNED, successive_variance
from bench_plugins.strategies._elimination import by_bands
from bench_plugins.strategies._odds import Evidence
from bench_plugins.strategies._racing import RaceRules, RaceSession
from bench_plugins.strategies.adaptive import Adaptive

PRIOR_FREEDOM = 16  # degrees of freedom that the mean variance of all prompts counts as
ENOUGH = 20  # degrees of freedom that all differences have together at the first bound
SMALLEST_ERROR = 1e-150  # standard error; divides without overflow


def published_cost(problem: Problem) -> float:
    """Return what the default schedule of `adaptive` takes, in evaluation equivalents."""
    return Adaptive(draws=len(problem.timesteps)).at_most(problem)


def first_stage(n_draws: int) -> int:
    """Return how many draws the default schedule of `adaptive` gives to every prompt."""
    return Adaptive(draws=n_draws).samples[0]


def staged_order(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws of the schedule's first stage, then the others.

    Args:
        bands: the levels that come first within each of the two, as `by_bands` takes them.
        timesteps: int64 [N], of the draws, ascending.
    """
    first = sub_grid(first_stage(len(timesteps)), len(timesteps))
    others = np.setdiff1d(np.arange(len(timesteps)), first)
    parts = [part[by_bands(bands, timesteps[part])] for part in (first, others) if len(part)]
    return np.concatenate(parts)


class PublishedSession(RaceSession):
    """One image's race in the two stages of the schedule.

    When the draws of the first stage are used up, as many of the surviving prompts are kept as
    what is left pays for on all the others: at least the five that the schedule keeps.

    Attributes:
        left: evaluation equivalents that the schedule would still spend.
        variances: float64 [P], the last variance of each prompt's difference from the leader. Of
            prompts that are dropped, too: those that were cut are the ones with rare large errors,
            and without them the survivors look all alike.
    """

    def __init__(self, strategy: RaceRules, problem: Problem) -> None:
        super().__init__(strategy, problem, staged_order(strategy.order, problem.timesteps))
        self.left = published_cost(problem)
        self.stage = first_stage(len(self.order))
        self.variances = np.zeros(len(self.alive))
        self.enough = 1 + ceil(ENOUGH / max(1, len(self.alive) - 1))
        self.look = 0  # those at which a bound could drop a prompt
        self.cut = False  # whether the schedule left a prompt out

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Take the errors and their cost, and drop prompts that cannot win."""
        self.left -= reply.cost
        super().tell(request, reply)

    def wanted(self) -> int:
        """Return the size of the next round, which ends where the first stage does."""
        step = super().wanted()
        return min(step, self.stage - self.seen) if self.seen < self.stage else step

    def ended_by(self) -> str:
        """Return `ceiling` where the schedule left a prompt out, or what ended the race."""
        return "ceiling" if self.cut else super().ended_by()

    def survivors(self) -> NDArray[np.bool_]:
        """Keep what the bound keeps; at the end of the first stage, as many as are paid for."""
        self.look += self.seen >= self.enough
        kept = super().survivors()
        if self.seen != self.stage or self.seen == len(self.order):
            return kept
        draws, problem = len(self.order) - self.seen, self.problem
        left = self.left - draws * problem.null_cost
        paid = max(1, int((left + 1e-9) // (draws * problem.cell_cost)))
        if kept.sum() > paid:
            self.cut = True
            scores = np.where(kept, self.table.scores()[self.alive], np.inf)
            kept[np.argsort(scores, kind="stable")[paid:]] = False
        return kept

    def worse(self, differences: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return bool [A]: which prompts are too unlikely to be ahead over all draws."""
        by_timestep = self.by_timestep(differences)
        draws, deviation = by_timestep.shape[1], self.strategy.deviation
        if draws < self.strategy.least:
            return np.zeros(len(differences), dtype=bool)
        own, freedom = successive_variance(by_timestep)
        self.variances[self.alive] = own
        measured = self.variances[self.variances > 0]
        pooled = float(measured.mean()) if len(measured) else 0.0
        variance = own
        if len(measured) > 1:
            variance = (freedom * variance + PRIOR_FREEDOM * pooled) / (freedom + PRIOR_FREEDOM)
            freedom += PRIOR_FREEDOM
        if deviation:
            variance = (freedom * variance + LEARNED * deviation**2) / (freedom + LEARNED)
            freedom += LEARNED
        share = draws / len(self.whole)
        stderr = np.maximum(np.sqrt(variance * (1 - share) / draws), SMALLEST_ERROR)
        distance = (by_timestep.mean(axis=1) + margin) / stderr
        return self.improbable(Evidence(distance, freedom, draws, share, own, pooled))

    def improbable(self, seen: Evidence) -> NDArray[np.bool_]:
        """Return bool [A]: whose probability of being ahead is below its share of `delta`."""
        from scipy.special import expit, stdtr

        rivals, odds, delta = max(1, len(self.alive) - 1), self.strategy.odds, self.strategy.delta
        if odds:
            return np.asarray(rivals * expit(seen.signs() @ np.array(odds)) < delta)
        if seen.draws < self.enough:
            return np.zeros(len(self.alive), dtype=bool)
        share = 6 / (pi * self.look) ** 2  # over all looks it adds up to 1
        return np.asarray(rivals * stdtr(seen.freedom, -seen.distance) < share * delta)


class Witness(PublishedSession):
    """A race that drops nobody but what the schedule cuts, and notes the signs of every rival.

    Attributes:
        noted: signs, float64 [A, 7], prompts, int64 [A], and the leader at each look.
    """

    def __init__(self, strategy: RaceRules, problem: Problem) -> None:
        super().__init__(strategy, problem)
        self.noted: list[tuple[Floats, Ints, int]] = []

    def improbable(self, seen: Evidence) -> NDArray[np.bool_]:
        """Note the signs, and drop nobody."""
        leader = int(self.alive[np.argmin(seen.distance)])
        self.noted.append((seen.signs(), self.alive.copy(), leader))
        return np.zeros(len(self.alive), dtype=bool)
