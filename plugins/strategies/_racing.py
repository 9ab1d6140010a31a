"""One image's race: which prompts have their next draws, and which are dropped."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Ints, Linearise, Outcome, Problem
from bench_plugins.strategies._bounds import betting_evidence, t_lower
from bench_plugins.strategies._elimination import Elimination, by_bands, shuffled, timestep_means

GROWTH = 8  # each round adds at least 1 / 8 of the draws seen, so that looking takes no time


class RaceRules:
    """The settings of a race; see `bench_plugins.strategies.race.Race`."""

    bound: str
    delta: float
    deviation: float
    first: int
    order: str
    span: float
    tie: float
    odds: tuple[float, ...] | None

    @property
    def least(self) -> int:
        """The fewest draws that a bound needs."""
        return 1 if self.deviation else 2


class RaceSession(Elimination):
    """One image's race."""

    def __init__(self, strategy: RaceRules, problem: Problem, order: Ints | None = None) -> None:
        if order is None and strategy.bound == "t":
            order = by_bands(strategy.order, problem.timesteps)
        elif order is None:
            order = shuffled(len(problem.timesteps), problem.seed)
        super().__init__(problem, order)
        self.strategy = strategy
        self.largest = 0.0  # absolute difference from a leader so far
        timesteps = problem.timesteps[self.order]
        self.whole = np.flatnonzero(np.diff(timesteps, append=-1)) + 1  # where a timestep is done
        self.tie = strategy.tie * float(problem.weights.mean())  # in units of `terms`
        self.tied = False  # whether no survivor can be better than the leader by more than that

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws."""
        return None if self.tied else super().ask()

    def least(self, prompts: int) -> float:
        """Return what a race of so many prompts costs at the least: the first look."""
        return self.problem.price(prompts, min(self.wanted(), len(self.order)))

    def outcome(self) -> Outcome:
        """Rank the classes, and say what ended the race."""
        return replace(super().outcome(), decided_by=self.ended_by())

    def ended_by(self) -> str:
        """Return `bound`, `ceiling`, `tie` or `exhausted`."""
        if self.tied:
            return "tie"
        classes = self.problem.class_of_prompt[self.alive]
        return "bound" if (classes == classes[0]).all() else "exhausted"

    def wanted(self) -> int:
        """Return the size of the next round: with the `t` bound, whole timesteps."""
        step = max(1, self.seen // GROWTH) if self.seen else self.strategy.first
        if self.strategy.bound != "t":
            return step
        enough = np.searchsorted(self.whole, min(self.seen + step, len(self.order)))
        return int(self.whole[enough]) - self.seen

    def survivors(self) -> NDArray[np.bool_]:
        """Keep the leader and the prompts that may still be as good."""
        if self.seen < self.strategy.least or self.seen == len(self.order):
            return np.ones(len(self.alive), dtype=bool)
        terms = self.terms(as_drawn=self.strategy.bound == "betting")
        leader = int(np.argmin(terms.mean(axis=1)))
        differences = terms - terms[leader]
        worse = self.worse(differences)
        worse[leader] = False
        if self.tie:
            classes = self.problem.class_of_prompt[self.alive]
            rivals = ~worse & (classes != classes[leader])
            self.tied = bool(rivals.any() and self.worse(differences, self.tie)[rivals].all())
        return ~worse

    def worse(self, differences: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return bool [A]: which means over all draws are significantly above minus `margin`."""
        strategy, n_draws = self.strategy, len(self.order)
        if strategy.bound == "t":
            by_timestep = self.by_timestep(differences)
            if by_timestep.shape[1] < strategy.least:
                return np.zeros(len(differences), dtype=bool)
            low = t_lower(by_timestep, len(self.whole), strategy.delta, strategy.deviation)
            return low > -margin
        self.largest = max(self.largest, float(np.abs(differences).max()))
        span = strategy.span or 2 * self.largest
        level = strategy.delta / max(1, len(self.problem.class_of_prompt) - 1)
        return betting_evidence(differences + margin, n_draws, span) >= log(1 / level)

    def by_timestep(self, differences: Floats) -> Floats:
        """Return float64 [A, u], the means of differences, [A, n], over the draws of a timestep."""
        return timestep_means(differences, np.sort(self.problem.timesteps[self.order[: self.seen]]))
