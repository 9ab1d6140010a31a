"""One image's race: which prompts have their next draws, and which are dropped."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Floats, Linearise, Outcome, Problem, Reply
from bench_plugins.strategies._bounds import betting_evidence, serfling_lower, t_lower
from bench_plugins.strategies._ceiling import RESERVE, Budget, best
from bench_plugins.strategies._elimination import Elimination
from bench_plugins.strategies._order import timestep_means

if TYPE_CHECKING:
    from bench_plugins.strategies.race import Race


class RaceSession(Elimination):
    """One image's race."""

    def __init__(self, strategy: Race, problem: Problem) -> None:
        super().__init__(problem, strategy.draw_order(problem))
        self.strategy = strategy
        self.level = strategy.delta  # of one comparison of the bound `t`
        self.each = strategy.delta / max(1, len(self.alive) - 1)  # shared among the rivals
        self.largest = 0.0  # absolute difference from a leader so far
        timesteps = problem.timesteps[self.order]
        self.whole = np.flatnonzero(np.diff(timesteps, append=-1)) + 1  # where a timestep is done
        self.budget = Budget(strategy.ceiling, problem)
        self.cut = False  # whether the ceiling left a prompt out, or ended the race

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws; near the ceiling, the better half of them."""
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
        """Return `bound`, `ceiling` or `exhausted`."""
        if self.cut:
            return "ceiling"
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
        worse = self.worse(terms - terms[leader])
        worse[leader] = False
        return ~worse

    def worse(self, differences: Floats) -> NDArray[np.bool_]:
        """Return bool [A]: which mean differences over all draws are significantly above zero."""
        strategy, n_draws = self.strategy, len(self.order)
        if strategy.bound == "t":
            seen = np.sort(self.problem.timesteps[self.order[: self.seen]])
            by_timestep = timestep_means(differences, seen)
            if by_timestep.shape[1] < strategy.least:
                return np.zeros(len(differences), dtype=bool)
            low = t_lower(by_timestep, len(self.whole), self.level, strategy.deviation)
            return low > 0
        self.largest = max(self.largest, float(np.abs(differences).max()))
        span = strategy.span or 2 * self.largest
        if strategy.bound == "betting":
            return betting_evidence(differences, n_draws, span) >= log(1 / self.each)
        each = self.each / strategy.looks(n_draws)
        return serfling_lower(differences, n_draws, each, span) > 0
