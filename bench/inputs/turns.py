"""The template of each draw where every draw uses one, so that all are seen equally.

k mod n would give a stage of 50 of 500 draws one template of five. Two kinds of sets are balanced
instead: the prefixes of the order in which most strategies ask for draws (`even_order`), and the
sub-grids. In a *balanced* set, the templates' counts differ by one at most.

Every prefix is balanced by construction: each n draws of the order are dealt all n templates. Which
of them gets which is left free, and is chosen so that the sub-grids of a size that divides N are
balanced as well. Other sub-grids, and ranges of levels, are only close to it: they overlap in too
many ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.inputs.draws import Ints, even_order, sub_grid

CLOSE = 128  # other sub-grids up to this size are kept close to balance
BANDS = 256  # so are so many ranges of levels, from the lowest on
TRIES, SWEEPS = 8, 200
SMALL = 1e-9
STEPS = 100_000  # swaps tried in all, so that many draws take no longer
UPHILL = 2**64 // 400  # a swap in 400 is made whatever it costs, to get out of dead ends


@dataclass
class _Deal:
    """Templates dealt to draws, and how often each set has seen each of them.

    Attributes:
        turns: int64 [N], the template of each draw.
        member: int64 [sets, N], 0 or 1: which draws are in each set.
        seen: int64 [sets, n].
    """

    turns: Ints
    member: Ints
    seen: Ints

    @classmethod
    def of(cls, turns: Ints, member: Ints, n: int) -> _Deal:
        """Count what each set has seen."""
        seen = [member[:, turns == template].sum(axis=1) for template in range(n)]
        return cls(turns, member, np.stack(seen, axis=1))

    def partner(self, block: Ints, template: int) -> Ints:
        """Return the draw of the block that has this template: one, or none in the last block."""
        return np.asarray(block[self.turns[block] == template])

    def change(self, draw: int, partner: Ints, template: int) -> Ints:
        """Return int64 [sets], by how much a swap changes the sum of the squared counts."""
        moved = self.member[:, draw] - self.member[:, partner].sum(axis=1)
        mine = self.seen[:, self.turns[draw]]
        return np.asarray(2 * moved * (self.seen[:, template] - mine + moved))

    def swap(self, draw: int, partner: Ints, template: int) -> None:
        """Give the draw this template, and its own to the partner."""
        moved = self.member[:, draw] - self.member[:, partner].sum(axis=1)
        mine = self.turns[draw]
        self.seen[:, mine] -= moved
        self.seen[:, template] += moved
        self.turns[partner], self.turns[draw] = mine, template

    @property
    def unbalanced(self) -> int:
        """How many sets' counts differ by more than one."""
        return int((self.seen.max(axis=1) - self.seen.min(axis=1) > 1).sum())


def in_turn(n_draws: int, n_templates: int) -> Ints:
    """Return int64 [N], the template of each draw.

    The same N and n give the same answer: the search takes its choices from a fixed stream.
    """
    if n_templates == 1:
        return np.zeros(n_draws, np.int64)
    order = even_order(n_draws)
    blocks = [order[start : start + n_templates] for start in range(0, n_draws, n_templates)]
    exact, close = _sub_grids(n_draws)
    dealt = _dealt(blocks, np.concatenate([exact, close]), n_templates)
    best = _Deal.of(dealt, exact, n_templates)
    for attempt in range(TRIES):
        if not best.unbalanced:
            break
        balanced = _balanced(_Deal.of(dealt.copy(), exact, n_templates), blocks, attempt)
        best = min(best, balanced, key=lambda deal: deal.unbalanced)
    return _closer(best.turns, blocks, exact, close, n_templates)


def _sub_grids(n_draws: int) -> tuple[Ints, Ints]:
    """Return 0 or 1, [sets, N]: the sub-grids whose size divides N; others, and ranges of draws."""
    exact = [size for size in range(2, n_draws + 1) if n_draws % size == 0]
    close = [size for size in range(2, min(CLOSE, n_draws) + 1) if n_draws % size]
    members = []
    for sizes in (exact, close):
        member = np.zeros((len(sizes), n_draws), np.int64)
        for row, size in enumerate(sizes):
            member[row, sub_grid(size, n_draws)] = 1
        members.append(member)
    ends = np.unique(np.linspace(1, n_draws, min(n_draws, BANDS), dtype=np.int64))
    bands = np.arange(n_draws) < ends[:, None]
    return members[0], np.concatenate([members[1], bands.astype(np.int64)])


def _weights(member: Ints) -> NDArray[np.float64]:
    """Return float64 [sets]: small sets weigh more."""
    return np.asarray(1.0 / np.sqrt(member.sum(axis=1)))


def _dealt(blocks: list[Ints], member: Ints, n: int) -> Ints:
    """Deal in the order of the draws: each gets what its sets have seen least, of what is left."""
    turns = np.zeros(sum(map(len, blocks)), np.int64)
    seen, weights = np.zeros((len(member), n)), _weights(member)
    for block in blocks:
        left = np.zeros(n)
        for draw in block:
            cost = np.round((member[:, draw] * weights) @ seen, 9) + left
            template = int(np.argmin(cost))
            left[template], turns[draw] = np.inf, template
            seen[:, template] += member[:, draw]
    return turns


def _balanced(deal: _Deal, blocks: list[Ints], attempt: int) -> _Deal:
    """Swap within blocks, at random, until every set is balanced or patience ends."""
    stream, n = np.random.Philox(key=attempt), deal.seen.shape[1]
    for _ in range(min(SWEEPS, max(1, STEPS // TRIES // len(blocks)))):
        # Raw numbers: what a generator makes of them may differ between versions of numpy.
        for block, raw in zip(blocks, stream.random_raw((len(blocks), 3)).tolist(), strict=True):
            draw, template = int(block[raw[0] % len(block)]), raw[1] % n
            partner = deal.partner(block, template)
            if draw in partner:
                continue
            if raw[2] < UPHILL or deal.change(draw, partner, template).sum() <= 0:
                deal.swap(draw, partner, template)
        if not deal.unbalanced:
            break
    return deal


def _closer(turns: Ints, blocks: list[Ints], exact: Ints, close: Ints, n: int) -> Ints:
    """Make swaps that bring the other sub-grids closer to balance and unbalance none."""
    deal, steps = _Deal.of(turns, np.concatenate([exact, close]), n), 0
    weights = _weights(close)
    for block in blocks:
        for draw in map(int, block):
            for template in range(n):
                if (steps := steps + 1) > STEPS:
                    return turns
                partner = deal.partner(block, template)
                if draw in partner:
                    continue
                change = deal.change(draw, partner, template)
                if change[: len(exact)].sum() <= 0 and change[len(exact) :] @ weights < -SMALL:
                    deal.swap(draw, partner, template)
    return turns
