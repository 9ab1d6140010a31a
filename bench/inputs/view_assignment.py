"""An even assignment of draws to the views of an image.

Every subset of draws that a strategy may use should see all views equally often. Assigning view
k mod n to draw k would not do: a stage of 50 of 500 draws would see one view of five. We call a set
of draws *balanced* if the counts of the views differ by at most 1, and balance two kinds of sets.
The prefixes of the order in which most strategies request draws (`even_order`) are balanced by
construction: each block of n draws in that order gets all n views. The assignment within the blocks
is chosen so that the sub-grids whose size divides N are balanced, too. Other sub-grids, and ranges
of levels, are only nearly balanced, because they overlap in too many ways.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from bench.contracts.draw_order import even_order, sub_grid
from bench.contracts.strategy import Floats, Ints

MAX_CLOSE_SIZE = 128  # largest size of the other sub-grids that are nearly balanced
N_BANDS = 256  # number of ranges of levels, from the lowest on, that are nearly balanced
TRIES, SWEEPS = 8, 200  # random searches, and rounds of each: a swap per block
MIN_GAIN = 1e-9  # smaller ones are rounding
MAX_SWAPS = 100_000  # maximum number of swaps tried, which bounds the time for many draws
UPHILL = 2**64 // 400  # one swap in 400 is accepted at any cost, to leave local minima


@dataclass
class _Assignment:
    """An assignment of views to draws, with counts of each view in each set of draws."""

    view_of: Ints  # int64 [N], the view of each draw
    membership: Ints  # int64 [sets, N], 0 or 1: which draws are in each set
    counts: Ints  # int64 [sets, n], draws of each view in each set

    @classmethod
    def of(cls, view_of: Ints, member: Ints, n: int) -> Self:
        """Return the assignment with its counts; the arrays are not copied."""
        counts = [member[:, view_of == view].sum(axis=1) for view in range(n)]
        return cls(view_of, member, np.stack(counts, axis=1))

    def swap_if(
        self, accepts: Callable[[Ints], bool] | None, block: Ints, draw: int, view: int
    ) -> None:
        """Give a draw this view, and its own view to the block's draw with this one, if any.

        `accepts` is told how much each set's sum of squared counts changes, int64 [sets]; None
        accepts any change.
        """
        partner, mine = block[self.view_of[block] == view], self.view_of[draw]
        if mine == view:
            return
        moved = self.membership[:, draw] - self.membership[:, partner].sum(axis=1)
        # (mine − moved)² + (view + moved)² − mine² − view², in counts of the two views.
        change = 2 * moved * (self.counts[:, view] - self.counts[:, mine] + moved)
        if accepts is None or accepts(change):
            self.counts[:, mine] -= moved
            self.counts[:, view] += moved
            self.view_of[partner], self.view_of[draw] = mine, view

    @property
    def unbalanced(self) -> int:
        """Number of sets whose counts differ by more than 1."""
        return int((self.counts.max(axis=1) - self.counts.min(axis=1) > 1).sum())


def assign_evenly(n_draws: int, n_views: int) -> Ints:
    """Return the view of each draw, int64 [N]; deterministic."""
    if n_views == 1:
        return np.zeros(n_draws, np.int64)
    order = even_order(n_draws)
    blocks = [order[start : start + n_views] for start in range(0, n_draws, n_views)]
    exact, close = _list_sets(n_draws)
    greedy = _assign_greedily(blocks, np.concatenate([exact, close]), n_views)
    best = _Assignment.of(greedy, exact, n_views)
    for attempt in range(TRIES):
        if not best.unbalanced:
            break
        searched = _balance(_Assignment.of(greedy.copy(), exact, n_views), blocks, attempt)
        best = min(best, searched, key=lambda assignment: assignment.unbalanced)
    return _improve_balance(best.view_of, blocks, exact, close, n_views)


def _list_sets(n_draws: int) -> tuple[Ints, Ints]:
    """Return membership, 0 or 1, [sets, N], in sub-grids of divisors of N, and in all others."""
    exact = [size for size in range(2, n_draws + 1) if n_draws % size == 0]
    close = [size for size in range(2, min(MAX_CLOSE_SIZE, n_draws) + 1) if n_draws % size]
    members = []
    for sizes in (exact, close):
        member = np.zeros((len(sizes), n_draws), np.int64)
        for row, size in enumerate(sizes):
            member[row, sub_grid(size, n_draws)] = 1
        members.append(member)
    ends = np.unique(np.linspace(1, n_draws, min(n_draws, N_BANDS), dtype=np.int64))
    bands = np.arange(n_draws) < ends[:, None]
    return members[0], np.concatenate([members[1], bands.astype(np.int64)])


def _set_weights(member: Ints) -> Floats:
    """Return the weight of each set, float64 [sets]; small sets weigh more."""
    return np.asarray(1.0 / np.sqrt(member.sum(axis=1)))


def _assign_greedily(blocks: list[Ints], member: Ints, n: int) -> Ints:
    """Give each draw, in order, the view left in its block that is rarest in the draw's sets."""
    view_of = np.zeros(sum(map(len, blocks)), np.int64)
    counts, weights = np.zeros((len(member), n)), _set_weights(member)
    for block in blocks:
        taken = np.zeros(n)  # infinity for a view that the block has had
        for draw in block:
            cost = np.round((member[:, draw] * weights) @ counts, 9) + taken
            view = int(np.argmin(cost))
            taken[view], view_of[draw] = np.inf, view
            counts[:, view] += member[:, draw]
    return view_of


def _balance(assignment: _Assignment, blocks: list[Ints], attempt: int) -> _Assignment:
    """Make random swaps within blocks until all sets are balanced or the limit is reached."""
    stream, n = np.random.Philox(key=attempt), assignment.counts.shape[1]
    for _ in range(min(SWEEPS, max(1, MAX_SWAPS // TRIES // len(blocks)))):
        # Raw numbers, because numpy's distributions may change between its versions.
        for block, raw in zip(blocks, stream.random_raw((len(blocks), 3)).tolist(), strict=True):
            draw, view = int(block[raw[0] % len(block)]), raw[1] % n
            assignment.swap_if(None if raw[2] < UPHILL else _is_no_worse, block, draw, view)
        if not assignment.unbalanced:
            break
    return assignment


def _is_no_worse(change: Ints) -> bool:
    return bool(change.sum() <= 0)


def _improve_balance(view_of: Ints, blocks: list[Ints], exact: Ints, close: Ints, n: int) -> Ints:
    """Make swaps that bring the other sets closer to balance without unbalancing the exact ones."""
    assignment, tried = _Assignment.of(view_of, np.concatenate([exact, close]), n), 0
    weights = _set_weights(close)

    def improves(change: Ints) -> bool:
        others = change[len(exact) :] @ weights
        return _is_no_worse(change[: len(exact)]) and bool(others < -MIN_GAIN)

    for block in blocks:
        for draw in map(int, block):
            for view in range(n):
                tried += 1
                if tried > MAX_SWAPS:
                    return view_of
                assignment.swap_if(improves, block, draw, view)
    return view_of
