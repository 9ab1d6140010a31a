"""Strategies that drop prompts: what they share, published stages, halving, a paired t-test."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from math import ceil, log2
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from bench.contracts.draw_order import even_order, sub_grid
from bench.contracts.parameters import as_text
from bench.contracts.strategy import (
    Bools,
    ErrorTable,
    Evaluate,
    Floats,
    Ints,
    Linearise,
    Outcome,
    Problem,
    Reply,
    Session,
    Strategy,
    comparison_words,
)


class Elimination:
    """One image whose surviving prompts have all been evaluated on the same draws.

    These are the first `seen` draws of `order`, int64 [N]. A subclass decides how many come next
    (`round_size`) and which prompts stay (`select_survivors`); `alive`, int64 [A], are the
    survivors, ascending. The image is decided when all survivors are prompts of one class, or when
    the draws are used up. In the latter case the lowest score over all draws wins, which is the
    exhaustive decision among the survivors.
    """

    def __init__(self, problem: Problem, order: Ints) -> None:
        self.problem = problem
        self.order = order
        self.table = ErrorTable(problem)
        self.alive = np.arange(len(problem.class_of_prompt))
        self.seen = 0

    def round_size(self) -> int:
        """Return the number of draws to request next, at least 1."""
        raise NotImplementedError

    def select_survivors(self) -> Bools:
        """Return bool [A]: which of `alive` survive. Called once per reply, it may update state."""
        raise NotImplementedError

    def best(self, count: int) -> Bools:
        """Return bool [A]: the prompts with the lowest scores; ties go to the lower index."""
        order = np.argsort(self.table.scores()[self.alive], kind="stable")
        return np.isin(np.arange(len(order)), order[:count])

    def has_winner(self) -> bool:
        """Return whether all survivors are prompts of the same class."""
        classes = self.problem.class_of_prompt[self.alive]
        return bool((classes == classes[0]).all())

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws, or None when the image is decided."""
        if self.seen and (self.seen == len(self.order) or self.has_winner()):
            return None
        return Evaluate(self.alive, self.order[self.seen : self.seen + self.round_size()])

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Record the errors, and keep the prompts that `select_survivors` returns."""
        self.table.tell(request, reply)
        self.seen += len(request.draws)
        self.alive = self.alive[self.select_survivors()]

    def outcome(self) -> Outcome:
        """Rank by the number of draws (how long a prompt survived), then by score."""
        return self.table.outcome(self.table.draws())

    def weighted_errors(self, as_drawn: bool = False) -> Floats:
        """Return float64 [A, n]: the survivors' errors on the draws seen, times the draws' weights.

        Their row means order the prompts as the scores do. The columns are in timestep order, or
        with `as_drawn` in the order of the requests.
        """
        seen = self.order[: self.seen]
        seen = seen if as_drawn else np.sort(seen)
        return self.table.errors[self.alive[:, None], seen] * self.problem.weights[seen]


def shuffle_draws(n_draws: int, seed: int) -> Ints:
    """Return int64 [N]: a uniformly random permutation of the draws, the same for every image."""
    return np.random.default_rng([seed, n_draws]).permutation(n_draws)


def order_by_bands(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws in each band of timesteps, band by band, then the others.

    Within each part the order is even, and draws of the same timestep are adjacent. `bands` are
    inclusive ranges of timesteps, such as `650-850` or `650-850,400-650`, or `even` for none;
    ValueError if they do not have this form. `timesteps` [N] are ascending.
    """
    distinct, timestep_of_draw = np.unique(timesteps, return_inverse=True)
    band = np.full(len(distinct), np.iinfo(np.int64).max)  # others come last
    for number, (low, high) in enumerate(parse_bands(bands)):
        inside = (distinct >= low) & (distinct <= high)
        band[inside] = np.minimum(band[inside], number)
    order = even_order(len(distinct))
    order = order[np.argsort(band[order], kind="stable")]
    place = np.argsort(order)  # the inverse permutation: the place of each timestep
    return np.asarray(np.argsort(place[timestep_of_draw], kind="stable"))


def timestep_means(values: Floats, timesteps: Ints) -> Floats:
    """Return float64 [A, u]: the means of `values` [A, n] over each of u ascending timesteps."""
    new = np.ones(len(timesteps), dtype=bool)  # where another timestep begins
    new[1:] = timesteps[1:] != timesteps[:-1]
    if new.all():
        # Contiguous like the means below, because NumPy rounds sums depending on the layout.
        return np.ascontiguousarray(values)
    starts = np.flatnonzero(new)
    sums = np.add.reduceat(values, starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=len(timesteps)))


def parse_bands(bands: str) -> list[tuple[int, int]]:
    """Return the lowest and highest timestep of each band; ValueError as in `order_by_bands`."""
    if bands == "even":
        return []
    matches = [re.fullmatch(r"\s*(\d+)-(\d+)\s*", band) for band in bands.split(",")]
    limits = [(int(match[1]), int(match[2])) for match in matches if match]
    if len(limits) < len(matches) or any(low > high for low, high in limits):
        raise ValueError(
            f"order must be 'even' or bands of timesteps such as 650-850,400-650, got {bands}"
        )
    return limits


# The published schedules: name → `samples` and `keep`.
SCHEDULES: dict[str, Any] = tomllib.loads(
    (files(__package__) / "schedules.toml").read_text("utf-8")
)


def published_stages(
    schedule: str, samples: tuple[int, ...] | None, keep: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return `samples` and `keep` of a published schedule; ValueError if others are stated.

    Its own may be, because a recorded run states them beside the name of the schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule}")
    own = {name: tuple(values) for name, values in SCHEDULES[schedule].items()}
    defaults = {"samples": (), "keep": (5, 1)}
    for name, stated in {"samples": tuple(samples or ()), "keep": tuple(keep)}.items():
        if stated not in (own[name], defaults[name]):
            raise ValueError(
                f"schedule={schedule} sets {name}={as_text(own[name])}, so leave out {name} or"
                f" schedule; got {name}={as_text(stated)}"
            )
    return own["samples"], own["keep"]


class Adaptive(Strategy):
    """The published elimination: another sub-grid of the draws in each stage for fewer prompts.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(Adaptive(samples=(4, 40), keep=(2, 1)), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 0, 4, 1], 92)

    After Li et al., ICCV 2023, algorithm 2. Stage i has a sub-grid of `samples[i]` evenly spread
    draws, usually a denser one than before. Draws of earlier stages are not repeated. A prompt's
    score is the mean over all its draws so far. The `keep[i]` prompts with the lowest scores
    survive; ties go to the lower prompt index.

    Args:
        samples: draws of each stage's sub-grid; None for a tenth of the plan's draws and then all
            of them, like the published 50 and 500.
        keep: prompts kept after each stage; must not grow and must end with 1.
        draws: N, the draws of the plan; None for the largest of `samples`, or 500.
        schedule: name of a published schedule, which determines `samples` and `keep`.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "adaptive"}

    def __init__(
        self,
        samples: tuple[int, ...] | None = None,
        keep: tuple[int, ...] = (5, 1),
        draws: int | None = None,
        schedule: str | None = None,
    ) -> None:
        if schedule is not None:
            samples, keep = published_stages(schedule, samples, keep)
        if samples is None:
            n_draws = 500 if draws is None else draws
            samples = (max(1, n_draws // 10), n_draws)
        self.samples, self.keep = tuple(samples), tuple(keep)
        self.draws = max(self.samples, default=0) if draws is None else draws
        self.settled = {"samples": self.samples, "keep": self.keep}
        if not self.samples or len(self.samples) != len(self.keep):
            raise ValueError(
                "samples and keep must have the same number of stages, such as samples=50,500"
                f" keep=5,1; got samples={as_text(samples)} keep={as_text(keep)}"
            )
        if min(self.samples) < 1 or min(self.keep) < 1:
            raise ValueError("samples and keep must be at least 1 in every stage")
        if self.keep[-1] != 1:
            raise ValueError(f"keep must end with 1, so that one prompt wins; got {as_text(keep)}")
        if any(later > earlier for earlier, later in zip(self.keep, self.keep[1:], strict=False)):
            raise ValueError(
                f"keep must not grow, because dropped prompts do not return; got {as_text(keep)}"
            )
        if max(self.samples) > self.draws:
            raise ValueError(f"samples must be at most draws={self.draws}, got {as_text(samples)}")

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the published schedule, if N >= 10, and one of at most 50 draws, if N >= 50."""
        published = {"samples": (n_draws // 10, n_draws), "keep": (5, 1)}
        schedules = {10: published, 50: {"samples": (5, 50), "keep": (3, 1)}}  # by the least N
        return [schedule for least, schedule in schedules.items() if n_draws >= least]

    @override
    def start(self, problem: Problem) -> Session:
        return AdaptiveSession(self, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the exact cost per image, in evaluations: it is the same for all images."""
        alive, total = len(problem.class_of_prompt), 0.0
        for draws, keep in self.stages(len(problem.timesteps)):
            total += problem.price(alive, len(draws))
            alive = min(alive, keep)
            if alive == 1:
                break
        return total

    def stages(self, n_draws: int) -> Iterator[tuple[Ints, int]]:
        """Yield the new draws (perhaps none) of each stage and the number of prompts to keep."""
        used = np.zeros(n_draws, dtype=bool)
        for n, keep in zip(self.samples, self.keep, strict=True):
            grid = sub_grid(n, n_draws)
            yield grid[~used[grid]], keep
            used[grid] = True


class AdaptiveSession(Elimination):
    """One image; `stages` are the numbers of draws and of survivors of each stage to come."""

    def __init__(self, strategy: Adaptive, problem: Problem) -> None:
        stages = list(strategy.stages(len(problem.timesteps)))
        super().__init__(problem, np.concatenate([draws for draws, _ in stages]))
        self.stages = [(len(draws), keep) for draws, keep in stages]

    @override
    def round_size(self) -> int:
        return self.stages[0][0]

    def has_winner(self) -> bool:
        """Return whether one prompt is left: as published, two of one class are scored further."""
        return len(self.alive) == 1

    def select_survivors(self) -> Bools:
        """Return bool [A]: the prompts that this stage, and later ones without draws, keep."""
        _, keep = self.stages.pop(0)
        while self.stages and self.stages[0][0] == 0:
            _, keep = self.stages.pop(0)
        return self.best(keep)


class Halving(Strategy):
    """Sequential halving: spend an equal share of a fixed budget per round, keep the better half.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(Halving(budget=8, draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 4, 1, 0], 34)

    There are ceil(log2 P) rounds for P prompts, each of at least one draw, so a budget below the
    number of rounds is exceeded. Unlike in the published algorithm (Karnin, Koren & Somekh, ICML
    2013, algorithm 3), a score is the mean over the draws of all rounds so far, because the draws
    are shared and forgetting them gains nothing. The draws are in a nested, even order.

    Args:
        budget: evaluations per image divided by the number of prompts, which is the number of
            draws of `uniform` at the same cost; None for 40, or all draws if there are fewer.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "halving"}

    def __init__(self, budget: int | None = None, draws: int = 500) -> None:
        budget = min(40, draws) if budget is None else budget
        if not 1 <= budget <= draws:
            raise ValueError(f"budget must be between 1 and draws={draws}, got {budget}")
        self.budget, self.draws = budget, draws
        self.settled = {"budget": budget}

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return powers of two below the number of draws."""
        return [{"budget": n} for n in (2, 4, 8, 16, 32, 64, 128, 256) if n < n_draws]

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return HalvingSession(self.budget, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the cost per image, in evaluations, if no class has several prompts.

        Otherwise it is an upper bound, because a session ends once one class is left.
        """
        prompts = alive = len(problem.class_of_prompt)
        left, total = len(problem.timesteps), 0.0
        while left and (alive > 1 or not total):  # a single prompt has one round
            draws = min(_round_size(self.budget, prompts, alive), left)
            left -= draws
            total += problem.price(alive, draws)
            alive = ceil(alive / 2)
        return total


class HalvingSession(Elimination):
    """One image, whose prompts are halved in each round."""

    def __init__(self, budget: int, problem: Problem) -> None:
        super().__init__(problem, even_order(len(problem.timesteps)))
        self.budget = budget

    @override
    def round_size(self) -> int:
        return _round_size(self.budget, len(self.problem.class_of_prompt), len(self.alive))

    def select_survivors(self) -> Bools:
        """Return bool [A]: the better half; ties go to the lower prompt index."""
        return self.best(ceil(len(self.alive) / 2))


def _round_size(budget: int, prompts: int, alive: int) -> int:
    """Return the draws that an equal share of the budget buys for the survivors, at least 1."""
    rounds = max(1, ceil(log2(prompts)))
    return max(1, budget * prompts // (rounds * alive))


class PairedTTest(Strategy):
    """Clark & Jaini 2023: after each draw, drop prompts that are worse by a paired t-test.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(PairedTTest(min_scores=5, draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations
    ([3, 2, 1, 4, 0], 118)

    All surviving prompts are scored on one more draw. After `min_scores` draws, each is compared
    with the best prompt so far by Student's paired t-test (two-sided, as SciPy's `ttest_rel`), and
    dropped if p < `cutoff`. The published algorithm (NeurIPS 2023, algorithm 1) draws timesteps at
    random and stops at 2,000 scores. This implementation uses the draws of the run in a random
    order and stops when they are used up. It tests after every draw without correcting for multiple
    tests, so `cutoff` does not bound the probability of a wrong decision.

    Args:
        min_scores: draws before the first test.
        cutoff: p-value below which a prompt is dropped.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "paired-ttest"}

    def __init__(self, min_scores: int = 20, cutoff: float = 2e-3, draws: int = 500) -> None:
        if min_scores < 2:
            raise ValueError(f"min_scores must be at least 2 for a t-test, got {min_scores}")
        if not 0 < cutoff < 1:
            raise ValueError(f"cutoff must be between 0 and 1, got {cutoff}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        self.min_scores, self.cutoff, self.draws = min_scores, cutoff, draws
        self.level, self.level_words = cutoff, comparison_words(cutoff, "cutoff")

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return three numbers of draws before the first test."""
        return [{"min_scores": n} for n in (5, 10, 20)]

    def start(self, problem: Problem) -> Session:
        """Start one image."""
        return PairedTTestSession(self.min_scores, self.cutoff, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the highest cost per image: every prompt on every draw."""
        return problem.price(len(problem.class_of_prompt), len(problem.timesteps))

    def at_least(self, problem: Problem) -> float:
        """Return the lowest cost per image, in evaluations: all prompts up to the first test."""
        draws = min(self.min_scores, len(problem.timesteps))
        return problem.price(len(problem.class_of_prompt), draws)


class PairedTTestSession(Elimination):
    """One image."""

    def __init__(self, min_scores: int, cutoff: float, problem: Problem) -> None:
        super().__init__(problem, shuffle_draws(len(problem.timesteps), problem.seed))
        self.min_scores, self.cutoff = min_scores, cutoff

    def round_size(self) -> int:
        """Return the number of draws up to the first test, then 1."""
        return max(1, self.min_scores - self.seen)

    def select_survivors(self) -> Bools:
        """Return bool [A]: the best prompt and those that do not differ significantly from it."""
        from scipy.special import stdtrit

        n = self.seen
        if n < max(2, min(self.min_scores, len(self.order))):
            return np.ones(len(self.alive), dtype=bool)
        errors = self.weighted_errors()
        difference = errors - errors[np.argmin(self.table.scores()[self.alive])]
        # |t| <= t* for t = mean / sqrt(variance / n), multiplied by sqrt(n variance), so that a
        # constant difference is significant unless it is zero.
        limit = stdtrit(n - 1, 1 - self.cutoff / 2) * np.sqrt(n * difference.var(axis=1, ddof=1))
        return np.asarray(np.abs(difference.sum(axis=1)) <= limit)
