"""Shared by strategies that drop prompts: the surviving prompts, and the order of the draws."""

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

    def select_survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: which of `alive` survive. Called once per reply, it may update state."""
        raise NotImplementedError

    def best(self, count: int) -> NDArray[np.bool_]:
        """Return bool [A]: the prompts with the lowest scores; ties go to the lower index."""
        order = np.argsort(self.table.scores()[self.alive], kind="stable")
        return np.isin(np.arange(len(order)), order[:count])

    def has_one_class(self) -> bool:
        """Return whether all survivors are prompts of the same class."""
        classes = self.problem.class_of_prompt[self.alive]
        return bool((classes == classes[0]).all())

    def ask(self) -> Evaluate | Linearise | None:
        """Return the survivors on their next draws, or None when the image is decided."""
        if self.seen and (self.seen == len(self.order) or self.has_one_class()):
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
        return self.table.errors[np.ix_(self.alive, seen)] * self.problem.weights[seen]


def shuffle_draws(n_draws: int, seed: int) -> Ints:
    """Return int64 [N]: a uniformly random permutation of the draws, the same for every image."""
    return np.random.default_rng([seed, n_draws]).permutation(n_draws)


def order_by_bands(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws in each band of timesteps, band by band, then the others.

    Within each part the order is even, and draws of the same timestep are adjacent. `bands` are
    inclusive ranges of timesteps, such as `650-850` or `650-850,400-650`, or `even` for none;
    ValueError if they do not have this form. `timesteps` [N] are ascending.
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
    """Return float64 [A, u]: the means of `values` [A, n] over each of u ascending timesteps."""
    new = np.ones(len(timesteps), dtype=bool)
    np.not_equal(timesteps[1:], timesteps[:-1], out=new[1:])
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
    pairs = [re.fullmatch(r"\s*(\d+)-(\d+)\s*", band) for band in bands.split(",")]
    limits = [(int(pair[1]), int(pair[2])) for pair in pairs if pair]
    if len(limits) < len(pairs) or any(low > high for low, high in limits):
        raise ValueError(
            f"order must be 'even' or bands of timesteps such as 650-850,400-650, got {bands}"
        )
    return limits
