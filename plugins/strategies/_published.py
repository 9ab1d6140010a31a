"""Racing elimination within the published two-stage schedule: same draws, never a higher cost."""

from __future__ import annotations

from math import ceil, pi

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Ints, Problem, Reply
from bench.inputs.draws import sub_grid
from bench_plugins.strategies._bounds import LEARNED_DOF, moderate, successive_variance
from bench_plugins.strategies._elimination import by_bands
from bench_plugins.strategies._odds import Evidence
from bench_plugins.strategies._racing import RaceSession, RaceSettings
from bench_plugins.strategies.adaptive import Adaptive

PRIOR_DOF = 16  # degrees of freedom that the mean variance of all prompts counts as
MIN_TOTAL_DOF = 20  # total degrees of freedom before the bound is first applied
MIN_STDERR = 1e-150  # so that a division by it does not overflow


def published_cost(problem: Problem) -> float:
    """Return the cost of the default schedule of `adaptive`, in evaluation equivalents."""
    return Adaptive(draws=len(problem.timesteps)).at_most(problem)


def first_stage(n_draws: int) -> int:
    """Return the number of draws in the first stage of the default schedule of `adaptive`."""
    return Adaptive(draws=n_draws).samples[0]


def staged_order(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws of the schedule's first stage, then the others.

    Args:
        bands: timesteps that come first within each stage; see `by_bands`.
        timesteps: int64 [N], of the draws, ascending.
    """
    first = sub_grid(first_stage(len(timesteps)), len(timesteps))
    others = np.setdiff1d(np.arange(len(timesteps)), first)
    parts = [part[by_bands(bands, timesteps[part])] for part in (first, others) if len(part)]
    return np.concatenate(parts)


class PublishedSession(RaceSession):
    """One image's race in the two stages of the schedule.

    At the end of the first stage, the remaining budget decides how many surviving prompts are kept:
    as many as it can pay for on all other draws, which is at least the five of the schedule.

    Attributes:
        budget: evaluation equivalents that the schedule has not spent yet.
        variances: float64 [P], the latest variance of each prompt's difference from the leader.
            Dropped prompts keep theirs, because they are often the ones with rare large errors;
            without them the pooled variance would be too small.
    """

    def __init__(self, settings: RaceSettings, problem: Problem) -> None:
        super().__init__(settings, problem, staged_order(settings.order, problem.timesteps))
        self.budget = published_cost(problem)
        self.stage = first_stage(len(self.order))
        self.variances = np.zeros(len(self.alive))
        self.min_bound_draws = 1 + ceil(MIN_TOTAL_DOF / max(1, len(self.alive) - 1))
        self.n_looks = 0  # so far, at which the bound could drop a prompt
        self.cut = False  # whether the budget ruled out a prompt

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Record the errors and their cost, and drop prompts that cannot win."""
        self.budget -= reply.cost
        super().tell(request, reply)

    def round_size(self) -> int:
        """Return the number of draws in the next round, which ends no later than the stage."""
        step = super().round_size()
        return min(step, self.stage - self.seen) if self.seen < self.stage else step

    def ended_by(self) -> str:
        """Return `ceiling` if the budget ruled out a prompt, otherwise what ended the race."""
        return "ceiling" if self.cut else super().ended_by()

    def survivors(self) -> NDArray[np.bool_]:
        """Keep the prompts that the bound keeps; after the first stage, as many as are paid for."""
        self.n_looks += self.seen >= self.min_bound_draws
        kept = super().survivors()
        if self.seen != self.stage or self.seen == len(self.order):
            return kept
        draws, problem = len(self.order) - self.seen, self.problem
        budget = self.budget - draws * problem.null_cost
        paid = max(1, int((budget + 1e-9) // (draws * problem.cell_cost)))
        if kept.sum() > paid:
            self.cut = True
            scores = np.where(kept, self.table.scores()[self.alive], np.inf)
            kept[np.argsort(scores, kind="stable")[paid:]] = False
        return kept

    def worse(self, differences: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return bool [A]: which prompts are too unlikely to be ahead by `margin` over all draws.

        Updates `variances`.
        """
        by_timestep = self.by_timestep(differences)
        draws, deviation = by_timestep.shape[1], self.settings.deviation
        if draws < self.min_draws:
            return np.zeros(len(differences), dtype=bool)
        own, dof = successive_variance(by_timestep)
        self.variances[self.alive] = own
        measured = self.variances[self.variances > 0]
        pooled = float(measured.mean()) if len(measured) else 0.0
        variance = own
        if len(measured) > 1:
            variance, dof = moderate(variance, dof, pooled, PRIOR_DOF)
        if deviation:
            variance, dof = moderate(variance, dof, deviation**2, LEARNED_DOF)
        fraction = draws / len(self.timestep_ends)
        stderr = np.maximum(np.sqrt(variance * (1 - fraction) / draws), MIN_STDERR)
        distance = (by_timestep.mean(axis=1) + margin) / stderr
        return self.improbable(Evidence(distance, dof, draws, fraction, own, pooled))

    def improbable(self, evidence: Evidence) -> NDArray[np.bool_]:
        """Return bool [A]: whose probability of being ahead is below the error budget of this look.

        Each probability is multiplied by the number of rivals (a union bound).
        """
        from scipy.special import expit, stdtr

        rivals, odds, delta = max(1, len(self.alive) - 1), self.settings.odds, self.settings.delta
        if odds:
            return np.asarray(rivals * expit(evidence.features() @ np.array(odds)) < delta)
        if evidence.draws < self.min_bound_draws:
            return np.zeros(len(self.alive), dtype=bool)
        share = 6 / (pi * self.n_looks) ** 2  # alpha spending: the shares of all looks add up to 1
        return np.asarray(rivals * stdtr(evidence.dof, -evidence.distance) < share * delta)


class RivalRecorder(PublishedSession):
    """A race that records every rival, and drops only the prompts that the schedule drops.

    Attributes:
        records: for each look, the features, float64 [A, 7], the prompts, int64 [A], and the
            leader.
    """

    def __init__(self, settings: RaceSettings, problem: Problem) -> None:
        super().__init__(settings, problem)
        self.records: list[tuple[Floats, Ints, int]] = []

    def improbable(self, evidence: Evidence) -> NDArray[np.bool_]:
        """Record the features, and drop nobody."""
        leader = int(self.alive[np.argmin(evidence.distance)])
        self.records.append((evidence.features(), self.alive.copy(), leader))
        return np.zeros(len(self.alive), dtype=bool)
