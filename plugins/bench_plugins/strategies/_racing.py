"""One image's race: evaluate the surviving prompts on a few more draws, drop those that are worse.

The test after each round of draws is called a look, as in sequential analysis. Dimensions: [A]
prompts still alive, [n] draws seen, [u] distinct timesteps among them.
"""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Ints, Linearise, Outcome, Problem
from bench_plugins.strategies._bounds import betting_evidence, t_lower
from bench_plugins.strategies._elimination import (
    Elimination,
    order_by_bands,
    shuffle_draws,
    timestep_means,
)

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


class RaceSession(Elimination):
    """One image's race.

    By default the draws come in the order of the setting `order` with bound `t`, and in a random
    order with bound `betting`. A bound needs `min_draws` draws (with bound `t`, timesteps): two for
    a variance, or one if the `deviation` is known. After `timestep_ends` draws of `order` [u], all
    draws of a timestep have been seen. `largest` is the largest absolute difference from a leader
    so far, for bound `betting`. `tie` is the setting, in units of `weighted_errors`; the race has
    `tied` if no rival of another class can be better than the leader by more than that.
    """

    def __init__(self, settings: RaceSettings, problem: Problem, order: Ints | None = None) -> None:
        if order is None and settings.bound == "t":
            order = order_by_bands(settings.order, problem.timesteps)
        elif order is None:
            order = shuffle_draws(len(problem.timesteps), problem.seed)
        super().__init__(problem, order)
        self.settings = settings
        self.min_draws = 1 if settings.deviation else 2
        self.largest = 0.0
        timesteps = problem.timesteps[self.order]
        self.timestep_ends = np.flatnonzero(np.diff(timesteps, append=-1)) + 1
        self.tie = settings.tie * float(problem.weights.mean())
        self.tied = False

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws, or None when the image is decided."""
        return None if self.tied else super().ask()

    def first_look_cost(self, prompts: int) -> float:
        """Return the cost of evaluating that many prompts up to the next look, in evaluations."""
        return self.problem.price(prompts, min(self.round_size(), len(self.order)))

    def outcome(self) -> Outcome:
        """Rank the classes, and record what ended the race."""
        return replace(super().outcome(), decided_by=self.end_reason())

    def end_reason(self) -> str:
        """Return what ended the race; see `Outcome.decided_by`."""
        if self.tied:
            return "tie"
        return "bound" if self.has_one_class() else "exhausted"

    def round_size(self) -> int:
        """Return the number of draws in the next round: with bound `t`, whole timesteps."""
        step = max(1, self.seen // GROWTH) if self.seen else self.settings.first
        if self.settings.bound != "t":
            return step
        last = np.searchsorted(self.timestep_ends, min(self.seen + step, len(self.order)))
        return int(self.timestep_ends[last]) - self.seen

    def select_survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: the leader, and the prompts that are not significantly worse.

        All survive if there are too few draws for a bound, or after the last draw. May set `tied`.
        """
        if self.seen < self.min_draws or self.seen == len(self.order):
            return np.ones(len(self.alive), dtype=bool)
        errors = self.weighted_errors(as_drawn=self.settings.bound == "betting")
        leader = int(np.argmin(errors.mean(axis=1)))
        differences = errors - errors[leader]
        worse = self.find_worse(differences)
        worse[leader] = False
        if self.tie:
            classes = self.problem.class_of_prompt[self.alive]
            rivals = ~worse & (classes != classes[leader])
            self.tied = bool(rivals.any() and self.find_worse(differences, self.tie)[rivals].all())
        return ~worse

    def find_worse(self, differences: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
        """Return bool [A]: whose mean difference over all draws is significantly above -`margin`.

        So with a margin of 0 the prompts are worse than the leader, and with a larger one they are
        not better by more than the margin. Updates `largest` with bound `betting`. `differences`
        [A, n] are weighted errors minus those of the leader, so positive where a prompt is worse;
        in timestep order with bound `t`, in the order drawn with `betting`. They and `margin` are
        in units of `weighted_errors`.
        """
        settings, n_draws = self.settings, len(self.order)
        if settings.bound == "t":
            means = self.average_by_timestep(differences)
            if means.shape[1] < self.min_draws:
                return np.zeros(len(differences), dtype=bool)
            low = t_lower(means, len(self.timestep_ends), settings.delta, settings.deviation)
            return low > -margin
        self.largest = max(self.largest, float(np.abs(differences).max()))
        span = settings.span or 2 * self.largest
        alpha = settings.delta / max(1, len(self.problem.class_of_prompt) - 1)  # a union bound
        return betting_evidence(differences + margin, n_draws, span) >= log(1 / alpha)

    def average_by_timestep(self, differences: Floats) -> Floats:
        """Return float64 [A, u]: the differences, [A, n], averaged over each timestep's draws."""
        return timestep_means(differences, np.sort(self.problem.timesteps[self.order[: self.seen]]))
