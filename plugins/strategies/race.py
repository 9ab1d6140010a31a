"""Racing: drop a prompt as soon as its paired difference from the leader is significant."""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats, Ints, Problem
from bench_plugins.strategies._bounds import betting_evidence, serfling_lower, t_lower
from bench_plugins.strategies._elimination import Elimination
from bench_plugins.strategies._order import by_bands, parse_bands, shuffled, timestep_means

BOUNDS = ("t", "betting", "serfling")


class Race:
    """Score all prompts on a few shared draws, drop those that cannot win, repeat.

    The *leader* is the surviving prompt with the lowest score. At every look, a prompt is dropped
    when a lower bound on the mean difference between its errors and the leader's is above zero.
    The aim is the exhaustive decision, a mean over a *finite* set of N draws. The part that has
    been seen is certain, so the bounds shrink to zero as the draws are used up, and a race that
    never drops a prompt decides exactly as `full` does. Each round adds at least 1 / `growth` of
    the draws seen, so that looking takes almost no time. A race ends when the survivors are
    prompts of a single class.

    What the bounds promise:

    `t` (fast). Draws come evenly spread over the levels (van der Corput). The variance of their
    mean is estimated from neighbouring levels and moderated by the variances of the other rivals.
    Draws that share a level (`--plan antithetic`) come together and count as one. Each comparison
    has level `delta` if the differences, without their trend along the levels, are independent,
    normal and about equally variable. Nothing corrects for the number of looks and prompts. With
    `order`, the first draws represent all of them only if the prompts have the same order at all
    levels. So `delta` is a dial and not a promise: `bench sweep` measures which share of decisions
    it keeps.

    `betting` and `serfling` (guaranteed). Draws come in uniformly random order. Over that order,
    the decision of an image differs from the exhaustive one with probability at most `delta`,
    *provided that* the weighted errors of two prompts on a draw never differ by more than `span`.
    The exhaustive winner is lost only if a bound fails that puts it above one of the P - 1 others;
    each of these has level delta / (P - 1), a union bound. `betting` holds at all looks together.
    `serfling`, the empirical Bernstein-Serfling inequality, also pays for the L looks,
    delta / (L (P - 1)), and is looser; it is here for comparison. The user must know `span`
    (`bench learn-order` shows the largest recorded difference). Without it, twice the largest
    difference from a leader so far is used, which is plausible but not guaranteed.

    Args:
        delta: level of the bounds; lower is safer and costs more.
        bound: `t`, `betting` or `serfling`.
        first: draws before the first look.
        growth: each round adds 1 / `growth` of the draws seen so far, and at least one.
        order: for `t`: levels to ask for first, such as `650-850,400-650` (`bench learn-order`
            finds them); `even`: none.
        span: for the guaranteed bounds: the largest possible difference between two errors on
            one draw; 0: not known.
        draws: N, the draws of the plan.
    """

    def __init__(
        self,
        delta: float = 0.02,
        bound: str = "t",
        first: int = 4,
        growth: int = 8,
        order: str = "even",
        span: float = 0.0,
        draws: int = 500,
    ) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"delta={delta} must lie between 0 and 1")
        if bound not in BOUNDS:
            raise ValueError(f"bound={bound} is none of {', '.join(BOUNDS)}")
        if first < 2 or growth < 1 or draws < 1:
            raise ValueError("first must be 2 or more, growth and draws 1 or more")
        if span < 0:
            raise ValueError(f"span={span} must not be negative; 0 says that it is not known")
        if bound != "t" and order != "even":
            raise ValueError(f"order goes with bound=t: bound={bound} needs a random order")
        parse_bands(order)
        self.delta, self.bound, self.first, self.growth = delta, bound, first, growth
        self.order, self.span, self.draws = order, span, draws

    def start(self, problem: Problem) -> RaceSession:
        """Start one image."""
        return RaceSession(self, problem)

    def at_least(self, problem: Problem) -> int:
        """Return the fewest evaluations per image: all prompts, up to the first look."""
        return len(problem.class_of_prompt) * min(self.first, len(problem.timesteps))

    def draw_order(self, problem: Problem) -> Ints:
        """Return int64 [N], the order in which draws are asked for."""
        if self.bound == "t":
            return by_bands(self.order, problem.timesteps)
        return shuffled(len(problem.timesteps), problem.seed)

    def step(self, seen: int) -> int:
        """Return the draws that the next round adds to `seen`."""
        return max(1, seen // self.growth) if seen else self.first

    def looks(self, n_draws: int) -> int:
        """Return how many looks there are before the draws run out."""
        seen = count = 0
        while (seen := seen + self.step(seen)) < n_draws:
            count += 1
        return max(1, count)


class RaceSession(Elimination):
    """One image's race."""

    def __init__(self, strategy: Race, problem: Problem) -> None:
        super().__init__(problem, strategy.draw_order(problem))
        self.strategy = strategy
        self.each = strategy.delta / max(1, len(self.alive) - 1)  # the level against one rival
        self.largest = 0.0  # absolute difference from a leader so far
        timesteps = problem.timesteps[self.order]
        self.whole = np.flatnonzero(np.diff(timesteps, append=-1)) + 1  # where a timestep is done

    def wanted(self) -> int:
        """Return the size of the next round: with the `t` bound, whole timesteps."""
        step = self.strategy.step(self.seen)
        if self.strategy.bound != "t":
            return step
        enough = np.searchsorted(self.whole, min(self.seen + step, len(self.order)))
        return int(self.whole[enough]) - self.seen

    def survivors(self) -> NDArray[np.bool_]:
        """Keep the leader and the prompts that may still be as good."""
        if self.seen < 2 or self.seen == len(self.order):
            return np.ones(len(self.alive), dtype=bool)
        terms = self.terms(as_drawn=self.strategy.bound == "betting")
        leader = int(np.argmin(terms.mean(axis=1)))
        worse = self.worse(terms - terms[leader])
        worse[leader] = False
        return ~worse

    def worse(self, differences: Floats) -> NDArray[np.bool_]:
        """Return bool [A]: which mean differences over all draws are significantly above zero."""
        strategy, n_draws = self.strategy, len(self.order)
        if strategy.bound == "t":
            seen = np.sort(self.problem.timesteps[self.order[: self.seen]])
            by_timestep = timestep_means(differences, seen)
            if by_timestep.shape[1] < 2:
                return np.zeros(len(differences), dtype=bool)
            return t_lower(by_timestep, len(self.whole), strategy.delta) > 0
        self.largest = max(self.largest, float(np.abs(differences).max()))
        span = strategy.span or 2 * self.largest
        if strategy.bound == "betting":
            return betting_evidence(differences, n_draws, span) >= log(1 / self.each)
        each = self.each / strategy.looks(n_draws)
        return serfling_lower(differences, n_draws, each, span) > 0
