"""What strategies that drop prompts have in common: the survivors, and the order of draws."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import (
    ErrorTable,
    Evaluate,
    Floats,
    Ints,
    Linearise,
    Outcome,
    Problem,
    Reply,
)
from bench.inputs.draws import even_order


class Elimination:
    """One image whose surviving prompts have all seen the same draws, a prefix of `order`.

    `wanted` says how many draws come next, and `survivors` which prompts stay. The image is decided
    when all survivors are prompts of one class, or when the draws are used up: then the lowest
    score over all draws wins, which is the exhaustive decision among the survivors.

    Attributes:
        alive: int64 [A], the surviving prompts, ascending.
        seen: how many draws of `order` they have.
    """

    def __init__(self, problem: Problem, order: Ints) -> None:
        self.problem = problem
        self.order = order
        self.table = ErrorTable(problem)
        self.alive = np.arange(len(problem.class_of_prompt))
        self.seen = 0

    def wanted(self) -> int:
        """Return how many draws to ask for next, at least one."""
        raise NotImplementedError

    def survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: which of `alive` survive the draws seen so far."""
        raise NotImplementedError

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws."""
        classes = self.problem.class_of_prompt[self.alive]
        if self.seen and (self.seen == len(self.order) or (classes == classes[0]).all()):
            return None
        return Evaluate(self.alive, self.order[self.seen : self.seen + self.wanted()])

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Take the errors and drop prompts that cannot win."""
        self.table.tell(request, reply)
        self.seen += len(request.draws)
        self.alive = self.alive[self.survivors()]

    def outcome(self) -> Outcome:
        """Rank by the number of draws (how long a prompt survived), then by score."""
        return self.table.outcome(self.table.draws())

    def terms(self, as_drawn: bool = False) -> Floats:
        """Return float64 [A, n]: the survivors' weighted errors on the draws seen.

        Their mean orders the prompts as their scores do.

        Args:
            as_drawn: in the order of the draws; else in the order of the timesteps.
        """
        seen = self.order[: self.seen]
        seen = seen if as_drawn else np.sort(seen)
        return self.table.errors[np.ix_(self.alive, seen)] * self.problem.weights[seen]


def shuffled(n_draws: int, seed: int) -> Ints:
    """Return int64 [N], a uniformly random permutation of the draws; the same for every image."""
    return np.random.default_rng([seed, n_draws]).permutation(n_draws)


def by_bands(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws of the bands first, band by band, the others after them.

    Within each part the order is even, and draws of one timestep come together.

    Args:
        bands: timesteps, such as `650-850` or `650-850,400-650`; both ends belong to a band, and
            `even` means none.
        timesteps: int64 [N], of the draws, ascending.

    Raises:
        ValueError: the text is not of that form.
    """
    distinct, unit_of_draw = np.unique(timesteps, return_inverse=True)
    order = even_order(len(distinct))
    part = np.full(len(distinct), np.iinfo(np.int64).max)
    for number, (low, high) in enumerate(parse_bands(bands)):
        inside = (distinct >= low) & (distinct <= high)
        part[inside] = np.minimum(part[inside], number)
    place = np.empty(len(distinct), dtype=np.int64)
    place[order[np.argsort(part[order], kind="stable")]] = np.arange(len(distinct))
    return np.asarray(np.argsort(place[unit_of_draw], kind="stable"))


def timestep_means(values: Floats, timesteps: Ints) -> Floats:
    """Return float64 [A, u]: the means of `values`, [A, n], over the draws of each timestep.

    Args:
        values: float64 [A, n].
        timesteps: int64 [n], ascending.
    """
    new = np.ones(len(timesteps), dtype=bool)
    np.not_equal(timesteps[1:], timesteps[:-1], out=new[1:])
    if new.all():
        return np.ascontiguousarray(values)  # so that sums over it round as those of means do
    starts = np.flatnonzero(new)
    sums = np.add.reduceat(values, starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=len(timesteps)))


def parse_bands(bands: str) -> list[tuple[int, int]]:
    """Return the (low, high) of each band.

    Raises:
        ValueError: the text is not of the form that `by_bands` takes.
    """
    if bands == "even":
        return []
    pairs = [re.fullmatch(r"\s*(\d+)-(\d+)\s*", band) for band in bands.split(",")]
    limits = [(int(pair[1]), int(pair[2])) for pair in pairs if pair]
    if len(limits) < len(pairs) or any(low > high for low, high in limits):
        raise ValueError(
            f"order={bands} is neither 'even' nor bands of timesteps such as 650-850,400-650"
        )
    return limits
