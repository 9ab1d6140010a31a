"""One image's race: which prompts have their next draws, and which are dropped."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Ints, Linearise, Outcome, Problem, Reply
from bench_plugins.strategies._bounds import betting_evidence, serfling_lower, t_lower
from bench_plugins.strategies._ceiling import (
    RESERVE,
    SCHEDULE,
    Budget,
    Ceiling,
    best,
    first_stage,
    most_equivalents,
    staged_order,
)
from bench_plugins.strategies._elimination import Elimination, by_bands, shuffled, timestep_means


class RaceRules:
    """What the settings of a race decide: its rounds, and the order of its draws."""

    bound: str
    delta: float
    deviation: float
    first: int
    growth: int
    order: str
    span: float
    ceiling: Ceiling
    tie: float

    @property
    def least(self) -> int:
        """The fewest draws that a bound needs."""
        return 1 if self.deviation else 2

    def check(self, problem: Problem) -> None:
        """Refuse a ceiling that does not pay for an evaluation of each prompt."""
        prompts = len(problem.class_of_prompt)
        least = Budget(None, problem).price(prompts, 1)
        if most_equivalents(self.ceiling, problem) < least:
            raise ValueError(
                f"ceiling={self.ceiling:g} is less than one evaluation for each of {prompts:,}"
                f" prompts; {least:g} or more is wanted"
            )

    def draw_order(self, problem: Problem) -> Ints:
        """Return int64 [N], the order in which draws are asked for."""
        if self.ceiling == SCHEDULE:
            return staged_order(self.order, problem.timesteps)
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

    def __init__(self, strategy: RaceRules, problem: Problem) -> None:
        super().__init__(problem, strategy.draw_order(problem))
        self.strategy = strategy
        self.level = strategy.delta  # of one comparison of the bound `t`
        self.delta_per_rival = strategy.delta / max(1, len(self.alive) - 1)
        self.largest = 0.0  # absolute difference from a leader so far
        timesteps = problem.timesteps[self.order]
        self.whole = np.flatnonzero(np.diff(timesteps, append=-1)) + 1  # where a timestep is done
        self.budget = Budget(strategy.ceiling, problem)
        self.cut = False  # whether the ceiling left a prompt out, or ended the race
        self.tie = strategy.tie * float(problem.weights.mean())  # in units of `terms`
        self.tied = False  # whether no survivor can be better than the leader by more than that

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws; near the ceiling, the better half of them."""
        if self.tied:
            return None
        request = super().ask()
        if not isinstance(request, Evaluate) or self.goes_on(len(request.draws)):
            return request
        step = self.last_draws()
        if not step:
            self.cut = True
            return None
        return Evaluate(self.alive, self.order[self.seen : self.seen + step])

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Take the errors and their cost, and drop prompts that cannot win."""
        self.budget.left -= reply.cost
        super().tell(request, reply)

    def least(self, prompts: int) -> float:
        """Return what a race of so many prompts costs at the least, in evaluations.

        That is the first look, or one draw where the ceiling may not pay for a look of all alive.
        """
        look = min(self.wanted(), len(self.order))
        return self.budget.price(prompts, look if self.goes_on(look) else 1)

    def goes_on(self, step: int) -> bool:
        """Return whether the ceiling leaves room for the next round and what may follow it."""
        budget, prompts = self.budget, len(self.alive)
        if budget.price(prompts, len(self.order) - self.seen) <= budget.left:
            return True
        reserve = RESERVE * budget.most if self.seen and prompts > 2 else 0.0
        return budget.price(prompts, step) + reserve <= budget.left

    def last_draws(self) -> int:
        """Return the next draws near the ceiling, 0 where none is paid for; drop the worse half."""
        budget, prompts = self.budget, len(self.alive)
        if not self.seen:
            if not budget.draws(prompts):
                self.strategy.check(self.problem)
            step = max(1, budget.draws(prompts, (1 - RESERVE) * budget.most))
        elif prompts == 2:
            step = min(budget.draws(2), self.wanted())
        else:
            keep, step = budget.halving(prompts, len(self.order) - self.seen)
            if not keep:
                return 0
            self.cut = True
            scores = self.table.scores()[self.alive]
            self.alive = self.alive[best(scores, self.problem.class_of_prompt[self.alive], keep)]
        return self.rounded(min(step, len(self.order) - self.seen))

    def rounded(self, step: int) -> int:
        """Return a number of draws, rounded down to whole timesteps where that leaves any."""
        if self.strategy.bound != "t":
            return step
        reached = self.whole[self.whole <= self.seen + step]
        done = int(reached[-1]) - self.seen if len(reached) else 0
        return done if done > 0 else step

    def outcome(self) -> Outcome:
        """Rank the classes, and say what ended the race."""
        return replace(super().outcome(), decided_by=self.ended_by())

    def ended_by(self) -> str:
        """Return `bound`, `ceiling`, `tie` or `exhausted`."""
        if self.cut or self.tied:
            return "ceiling" if self.cut else "tie"
        classes = self.problem.class_of_prompt[self.alive]
        return "bound" if (classes == classes[0]).all() else "exhausted"

    def wanted(self) -> int:
        """Return the size of the next round: with the `t` bound, whole timesteps."""
        step = self.strategy.step(self.seen)
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
            seen = np.sort(self.problem.timesteps[self.order[: self.seen]])
            by_timestep = timestep_means(differences, seen)
            if by_timestep.shape[1] < strategy.least:
                return np.zeros(len(differences), dtype=bool)
            low = t_lower(by_timestep, len(self.whole), self.level, strategy.deviation)
            return low > -margin
        self.largest = max(self.largest, float(np.abs(differences).max()))
        span = strategy.span or 2 * self.largest
        if strategy.bound == "betting":
            evidence = betting_evidence(differences + margin, n_draws, span)
            return evidence >= log(1 / self.delta_per_rival)
        level = self.delta_per_rival / strategy.looks(n_draws)
        return serfling_lower(differences, n_draws, level, span) > -margin


class ScheduledSession(RaceSession):
    """One image's race in the two stages of the schedule.

    When the draws of the first stage are used up, as many of the surviving prompts are kept as
    what is left pays for on all the others: at least the five that the schedule keeps.
    """

    def __init__(self, strategy: RaceRules, problem: Problem) -> None:
        super().__init__(strategy, problem)
        self.stage = first_stage(len(self.order))
        self.level = self.delta_per_rival / strategy.looks(len(self.order))

    def goes_on(self, step: int) -> bool:
        """Return True: no round of either stage costs more than the schedule's own."""
        return True

    def wanted(self) -> int:
        """Return the size of the next round, which ends where the first stage does."""
        step = super().wanted()
        return min(step, self.stage - self.seen) if self.seen < self.stage else step

    def survivors(self) -> NDArray[np.bool_]:
        """Keep what the bound keeps; at the end of the first stage, as many as are paid for."""
        kept = super().survivors()
        paid = self.budget.prompts(len(self.order) - self.seen)
        if self.seen != self.stage or kept.sum() <= paid:
            return kept
        self.cut = True
        scores = np.where(kept, self.table.scores()[self.alive], np.inf)
        kept[np.argsort(scores, kind="stable")[paid:]] = False
        return kept
