"""One image's race: evaluate the surviving prompts on a few more draws, drop those that are worse.

Dimensions: [A] prompts still alive, [n] draws seen, [u] distinct timesteps among them.
"""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Ints, Linearise, Outcome, Problem
from bench_plugins.strategies._bounds import betting_evidence, t_lower
from bench_plugins.strategies._elimination import Elimination, by_bands, shuffled, timestep_means

GROWTH = 8  # each round adds at least 1 / 8 of the draws seen, so that few looks are needed


class RaceSettings(Protocol):
    """The parameters of `Race` that a session reads."""

    bound: str
    delta: float
    deviation: float
    first: int
    order: str
    span: float
    tie: float
    odds: tuple[float, ...] | None


class RaceSession(Elimination):
    """One image's race.

    Attributes:
        min_draws: smallest number of draws (with bound `t`, of timesteps) for which there is a
            bound.
    """

    def __init__(self, settings: RaceSettings, problem: Problem, order: Ints | None = None) -> None:
        if order is None and settings.bound == "t":
            order = by_bands(settings.order, problem.timesteps)
        elif order is None:
            order = shuffled(len(problem.timesteps), problem.seed)
        super().__init__(problem, order)
        self.settings = settings
        self.min_draws = 1 if settings.deviation else 2
        self.largest = 0.0  # largest absolute difference from a leader so far
        timesteps = problem.timesteps[self.order]
        # Numbers of draws after which all draws of a timestep have been seen, ascending.
        self.timestep_ends = np.flatnonzero(np.diff(timesteps, append=-1)) + 1
        self.tie = settings.tie * float(problem.weights.mean())  # in units of `terms`
        self.tied = False  # whether no survivor can be better than the leader by more than `tie`

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws, or None when the image is decided."""
        return None if self.tied else super().ask()

    def first_look_cost(self, prompts: int) -> float:
        """Return the lowest cost of a race of so many prompts, which ends at the first look."""
        return self.problem.price(prompts, min(self.round_size(), len(self.order)))

    def outcome(self) -> Outcome:
        """Rank the classes, and record what ended the race."""
        return replace(super().outcome(), decided_by=self.ended_by())

    def ended_by(self) -> str:
        """Return `bound`, `ceiling`, `tie` or `exhausted`."""
        if self.tied:
            return "tie"
        return "bound" if self.one_class_left() else "exhausted"

    def round_size(self) -> int:
        """Return the number of draws in the next round: with bound `t`, whole timesteps."""
        step = max(1, self.seen // GROWTH) if self.seen else self.settings.first
        if self.settings.bound != "t":
            return step
        last = np.searchsorted(self.timestep_ends, min(self.seen + step, len(self.order)))
        return int(self.timestep_ends[last]) - self.seen

    def survivors(self) -> NDArray[np.bool_]:
        """Keep the leader and the prompts that may still be as good. May set `tied`."""
        if self.seen < self.min_draws or self.seen == len(self.order):
            return np.ones(len(self.alive), dtype=bool)
        terms = self.terms(as_drawn=self.settings.bound == "betting")
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
        """Return bool [A]: whose mean difference over all draws is significantly above -`margin`.

        Args:
            differences: float64 [A, n], from the leader; in timestep order with bound `t`, in the
                order drawn with `betting`. With `betting`, the largest of them is remembered.
            margin: in units of `terms`.
        """
        settings, n_draws = self.settings, len(self.order)
        if settings.bound == "t":
            by_timestep = self.by_timestep(differences)
            if by_timestep.shape[1] < self.min_draws:
                return np.zeros(len(differences), dtype=bool)
            low = t_lower(by_timestep, len(self.timestep_ends), settings.delta, settings.deviation)
            return low > -margin
        self.largest = max(self.largest, float(np.abs(differences).max()))
        span = settings.span or 2 * self.largest
        level = settings.delta / max(1, len(self.problem.class_of_prompt) - 1)
        return betting_evidence(differences + margin, n_draws, span) >= log(1 / level)

    def by_timestep(self, differences: Floats) -> Floats:
        """Return float64 [A, u]: the differences, [A, n], averaged over each timestep's draws."""
        return timestep_means(differences, np.sort(self.problem.timesteps[self.order[: self.seen]]))
