"""Racing: drop a prompt as soon as its paired difference from the leader is significant."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import (
    Evaluate,
    Floats,
    Ints,
    Linearise,
    Outcome,
    Problem,
    Reply,
)
from bench_plugins.strategies._bounds import betting_evidence, serfling_lower, t_lower
from bench_plugins.strategies._ceiling import (
    RESERVE,
    Budget,
    Ceiling,
    best,
    check_ceiling,
    most_cells,
    most_equivalents,
)
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

    With a `ceiling`, no image costs more. A race is as it would be without, as long as its next
    round leaves half of the ceiling; a race of two, or one that could use all draws below the
    ceiling, as long as it is paid for, and so is the first look. Then what is left is spent as in
    sequential halving: the better half of the prompts get more draws, in rounds of about the same
    cost, and the bounds still drop prompts. `decided_by` says `ceiling` for such an image: nothing
    is promised for it.

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
        ceiling: the most evaluation equivalents per image, those of gradients and nulls among
            them; `adaptive`: what the default schedule of `adaptive` takes on these draws; None:
            every prompt on every draw.
        deviation: for `t`: the standard deviation of the difference between two prompts on a draw,
            learned from other images (`bench learn-order`), so that `first` may be 1; 0: unknown.
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
        ceiling: Ceiling = None,
        deviation: float = 0.0,
    ) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"delta={delta} must lie between 0 and 1")
        if bound not in BOUNDS:
            raise ValueError(f"bound={bound} is none of {', '.join(BOUNDS)}")
        if deviation < 0 or (deviation and bound != "t"):
            raise ValueError(f"deviation={deviation:g} must not be negative, and goes with bound=t")
        if first < (1 if deviation else 2) or growth < 1 or draws < 1:
            raise ValueError(
                "first must be 2 or more (1 with a deviation), growth and draws 1 or more"
            )
        if span < 0:
            raise ValueError(f"span={span} must not be negative; 0 says that it is not known")
        if bound != "t" and order != "even":
            raise ValueError(f"order goes with bound=t: bound={bound} needs a random order")
        parse_bands(order)
        check_ceiling(ceiling)
        self.ceiling, self.deviation = ceiling, deviation
        self.delta, self.bound, self.first, self.growth = delta, bound, first, growth
        self.order, self.span, self.draws = order, span, draws

    @property
    def least(self) -> int:
        """The fewest draws that a bound needs."""
        return 1 if self.deviation else 2

    def start(self, problem: Problem) -> RaceSession:
        """Start one image."""
        return RaceSession(self, problem)

    def check(self, problem: Problem) -> None:
        """Refuse a ceiling that does not pay for an evaluation of each prompt."""
        prompts = len(problem.class_of_prompt)
        least = Budget(None, problem).price(prompts, 1)
        if most_equivalents(self.ceiling, problem) < least:
            raise ValueError(
                f"ceiling={self.ceiling:g} is less than one evaluation for each of {prompts:,}"
                f" prompts; {least:g} or more is wanted"
            )

    def at_least(self, problem: Problem) -> int:
        """Return the fewest evaluations per image: all prompts, up to the first look."""
        look = len(problem.class_of_prompt) * min(self.first, len(problem.timesteps))
        return most_cells(self.ceiling, problem, look)

    def at_most(self, problem: Problem) -> int:
        """Return the most evaluations per image: every prompt on every draw, or the ceiling."""
        cells = len(problem.class_of_prompt) * len(problem.timesteps)
        return most_cells(self.ceiling, problem, cells)

    def cheapest(self, problem: Problem, errors: Floats) -> float:
        """Return the cost of the cheapest proof that an all-knowing race could give.

        It knows the exhaustive winner, and for each rival the fewest draws of this race's order
        after which the bound puts the rival above the winner: two at least, one with a deviation.
        It may not choose draws by their errors: then the bound would mean nothing. Variances are
        pooled over all rivals. The winner has as many draws as the slowest rival; other prompts of
        its class have none.

        Args:
            problem: what the image asks.
            errors: float64 [P, N].
        """
        session = self.start(problem)
        terms = errors * problem.weights
        winner = int(terms.mean(axis=1).argmin())
        classes = problem.class_of_prompt
        differences = terms[classes != classes[winner]] - terms[winner]
        n_draws = len(problem.timesteps)
        needed = np.full(len(differences), n_draws)
        for seen in range(min(self.least, n_draws), n_draws):
            session.seen = seen
            drawn = session.order[:seen]
            shown = differences[:, drawn if self.bound == "betting" else np.sort(drawn)]
            needed[session.worse(shown) & (needed == n_draws)] = seen
            if (needed < n_draws).all():
                break
        draws = int(needed.max(initial=1))
        return float((needed.sum() + draws) * problem.cell_cost + draws * problem.null_cost)

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
            low = t_lower(by_timestep, len(self.whole), strategy.delta, strategy.deviation)
            return low > 0
        self.largest = max(self.largest, float(np.abs(differences).max()))
        span = strategy.span or 2 * self.largest
        if strategy.bound == "betting":
            return betting_evidence(differences, n_draws, span) >= log(1 / self.each)
        each = self.each / strategy.looks(n_draws)
        return serfling_lower(differences, n_draws, each, span) > 0
