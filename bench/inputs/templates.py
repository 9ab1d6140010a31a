"""Several prompts per class, and how they are combined into one score per class.

    best     every prompt is scored separately, and the best one is the class's score
    mean     the error of a class on a draw is the mean over its prompts, all of them evaluated
    spread   each draw uses one prompt of every class, in turn, at the cost of a single prompt

A strategy sees columns: one per prompt with `best`, otherwise one per class.

With `spread`, every subset of draws that a strategy may use should see all templates equally often.
Assigning template k mod n to draw k would not do: a stage of 50 of 500 draws would see one template
of five. We call a set of draws *balanced* if the counts of the templates differ by at most 1, and
balance two kinds of sets. The prefixes of the order in which most strategies request draws
(`even_order`) are balanced by construction: each block of n draws in that order gets all n
templates. The assignment within the blocks is chosen so that the sub-grids whose size divides N are
balanced, too. Other sub-grids, and ranges of levels, are only nearly balanced, because they overlap
in too many ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.discovery.declaration_checks import PLACEHOLDER
from bench.errors import UserError
from bench.inputs.draws import Ints, even_order, sub_grid
from bench.inputs.parsing import read_text_file
from bench.inputs.prompts import Prompts, check_template, from_template

RULES = ("best", "mean", "spread")


def read_templates(values: Sequence[str]) -> tuple[str, ...]:
    """Return the templates of `--template`: texts with `{class}`, or files of them, one per line.

    Skips empty lines. Raises UserError if a template is invalid or repeated or a file unreadable.
    """
    where_of: dict[str, str] = {}
    for value in values:
        for template, where in _read_value(value):
            check_template(template, f"{where}the template")
            if template in where_of:
                raise UserError(f"{where}the template {template!r} occurs twice.")
            where_of[template] = where
    return tuple(where_of)


def _read_value(value: str) -> list[tuple[str, str]]:
    path = Path(value)
    if PLACEHOLDER in value or not path.is_file():
        return [(value, "--template: ")]
    lines = read_text_file(path).splitlines()
    templates = [(line.strip(), f"{path}:{n}: ") for n, line in enumerate(lines, 1) if line.strip()]
    if not templates:
        raise UserError(f"--template: {path} holds no templates.")
    return templates


def from_templates(
    templates: Sequence[str], classes: Sequence[str], phrases: Mapping[str, str]
) -> Prompts:
    """Return one prompt per template and class, in the order of the templates."""
    made = [from_template(template, classes, phrases, as_written=True) for template in templates]
    return Prompts(
        tuple(text for prompts in made for text in prompts.texts),
        tuple(index for prompts in made for index in prompts.class_of_prompt),
        tuple(source for prompts in made for source in prompts.sources),
    )


@dataclass(frozen=True)
class Columns:
    """The columns that a strategy sees, and the cells behind them."""

    class_of_column: Ints  # [C], class index of each column
    members: Ints  # [C, n], prompts of each column
    positions: Ints  # [N, j], positions in `members` of the prompts evaluated on each draw

    @property
    def per_column(self) -> int:
        """Number of prompts evaluated for a column on a draw."""
        return int(self.positions.shape[1])

    def cells(self, columns: Ints, draws: Ints) -> tuple[Ints, Ints]:
        """Return the prompts and draws of a block's cells, int64 [draws · columns · per_column].

        They are ordered by draw, because the prompts of one draw share their noised latent.
        """
        prompts = self.members[columns][:, self.positions[draws]].transpose(1, 0, 2)
        return prompts.ravel(), np.repeat(draws, len(columns) * self.per_column)

    def errors(self, values: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
        """Return a block's errors, float32 [columns, draws], from those of its cells."""
        by_cell = values.reshape(-1, columns, self.per_column)
        if self.per_column == 1:
            return by_cell[:, :, 0].T
        return np.asarray(by_cell.mean(axis=2, dtype=np.float64).T, np.float32)

    def mixture(self, mixture: NDArray[np.float64], draw: int) -> NDArray[np.float64]:
        """Convert the weights of a mixture of columns to weights of the prompts, float64 [P]."""
        weights = np.zeros(self.members.size)
        weights[self.members[:, self.positions[draw]]] = mixture[:, None] / self.per_column
        return weights

    def first_order(self, values: NDArray[np.float32], draw: int) -> NDArray[np.float32]:
        """Convert first-order errors on a draw of the prompts, [P], to those of the columns."""
        evaluated = values[self.members[:, self.positions[draw]]]
        return np.asarray(evaluated.mean(axis=1, dtype=np.float64), np.float32)


def make_columns(class_of_prompt: Ints, rule: str, n_draws: int, per_level: int = 1) -> Columns:
    """Return the columns for prompts of the classes `class_of_prompt`, int64 [P].

    `per_level` is the number of draws that share a level, and therefore a prompt: 2 for a paired
    plan. Raises UserError if, with `mean` or `spread`, classes have different numbers of prompts.
    """
    if rule == "best":
        prompts = np.arange(len(class_of_prompt))
        return Columns(class_of_prompt, prompts[:, None], np.zeros((n_draws, 1), np.int64))
    counts = np.bincount(class_of_prompt)
    if (counts != counts[0]).any():
        raise UserError(
            f"--template-rule {rule} needs the same number of prompts for each class, got"
            f" {counts.min()} to {counts.max()}."
        )
    members = np.argsort(class_of_prompt, kind="stable").reshape(len(counts), -1)
    n = members.shape[1]
    if rule == "mean":
        positions = np.tile(np.arange(n), (n_draws, 1))
    else:
        turns = assign_evenly(-(-n_draws // per_level), n)
        positions = np.repeat(turns, per_level)[:n_draws, None]
    return Columns(np.arange(len(counts)), members, positions)


MAX_CLOSE_SIZE = 128  # largest size of the other sub-grids that are nearly balanced
N_BANDS = 256  # number of ranges of levels, from the lowest on, that are nearly balanced
TRIES, SWEEPS = 8, 200
MIN_GAIN = 1e-9
MAX_SWAPS = 100_000  # maximum number of swaps tried, which bounds the time for many draws
UPHILL = 2**64 // 400  # one swap in 400 is accepted at any cost, to leave local minima


@dataclass
class _Assignment:
    """An assignment of templates to draws, with counts of each template in each set of draws."""

    turns: Ints  # int64 [N], the template of each draw
    membership: Ints  # int64 [sets, N], 0 or 1: which draws are in each set
    counts: Ints  # int64 [sets, n], draws of each template in each set

    @classmethod
    def of(cls, turns: Ints, member: Ints, n: int) -> _Assignment:
        """Return the assignment with its counts; the arrays are not copied."""
        seen = [member[:, turns == template].sum(axis=1) for template in range(n)]
        return cls(turns, member, np.stack(seen, axis=1))

    def partner(self, block: Ints, template: int) -> Ints:
        """Return the block's draw with this template, if any; the last block may lack it."""
        return np.asarray(block[self.turns[block] == template])

    def change(self, draw: int, partner: Ints, template: int) -> Ints:
        """Return by how much a swap changes each set's sum of squared counts, int64 [sets]."""
        moved = self.membership[:, draw] - self.membership[:, partner].sum(axis=1)
        mine = self.counts[:, self.turns[draw]]
        return np.asarray(2 * moved * (self.counts[:, template] - mine + moved))

    def swap(self, draw: int, partner: Ints, template: int) -> None:
        """Exchange the templates of `draw` and `partner`; the draw gets `template`."""
        moved = self.membership[:, draw] - self.membership[:, partner].sum(axis=1)
        mine = self.turns[draw]
        self.counts[:, mine] -= moved
        self.counts[:, template] += moved
        self.turns[partner], self.turns[draw] = mine, template

    @property
    def unbalanced(self) -> int:
        """Number of sets whose counts differ by more than 1."""
        return int((self.counts.max(axis=1) - self.counts.min(axis=1) > 1).sum())


def assign_evenly(n_draws: int, n_templates: int) -> Ints:
    """Return the template of each draw, int64 [N]; deterministic."""
    if n_templates == 1:
        return np.zeros(n_draws, np.int64)
    order = even_order(n_draws)
    blocks = [order[start : start + n_templates] for start in range(0, n_draws, n_templates)]
    exact, close = _list_sets(n_draws)
    dealt = _assign_greedily(blocks, np.concatenate([exact, close]), n_templates)
    best = _Assignment.of(dealt, exact, n_templates)
    for attempt in range(TRIES):
        if not best.unbalanced:
            break
        balanced = _balance(_Assignment.of(dealt.copy(), exact, n_templates), blocks, attempt)
        best = min(best, balanced, key=lambda deal: deal.unbalanced)
    return _improve_balance(best.turns, blocks, exact, close, n_templates)


def _list_sets(n_draws: int) -> tuple[Ints, Ints]:
    """Return which draws are in each set, 0 or 1, [sets, N], for two groups of sets.

    They are the sub-grids whose size divides N, and other sub-grids with ranges of levels.
    """
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


def _set_weights(member: Ints) -> NDArray[np.float64]:
    """Return the weight of each set, float64 [sets]; small sets weigh more."""
    return np.asarray(1.0 / np.sqrt(member.sum(axis=1)))


def _assign_greedily(blocks: list[Ints], member: Ints, n: int) -> Ints:
    """Assign templates greedily, in the order of the draws.

    Each draw gets, of the templates left in its block, the one that is rarest in its sets.
    """
    turns = np.zeros(sum(map(len, blocks)), np.int64)
    seen, weights = np.zeros((len(member), n)), _set_weights(member)
    for block in blocks:
        left = np.zeros(n)
        for draw in block:
            cost = np.round((member[:, draw] * weights) @ seen, 9) + left
            template = int(np.argmin(cost))
            left[template], turns[draw] = np.inf, template
            seen[:, template] += member[:, draw]
    return turns


def _balance(deal: _Assignment, blocks: list[Ints], attempt: int) -> _Assignment:
    """Make random swaps within blocks until all sets are balanced or the limit is reached."""
    stream, n = np.random.Philox(key=attempt), deal.counts.shape[1]
    for _ in range(min(SWEEPS, max(1, MAX_SWAPS // TRIES // len(blocks)))):
        # Raw numbers, because numpy's distributions may change between its versions.
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


def _improve_balance(turns: Ints, blocks: list[Ints], exact: Ints, close: Ints, n: int) -> Ints:
    """Make swaps that bring the other sets closer to balance without unbalancing the exact ones."""
    deal, steps = _Assignment.of(turns, np.concatenate([exact, close]), n), 0
    weights = _set_weights(close)
    for block in blocks:
        for draw in map(int, block):
            for template in range(n):
                if (steps := steps + 1) > MAX_SWAPS:
                    return turns
                partner = deal.partner(block, template)
                if draw in partner:
                    continue
                change = deal.change(draw, partner, template)
                if change[: len(exact)].sum() <= 0 and change[len(exact) :] @ weights < -MIN_GAIN:
                    deal.swap(draw, partner, template)
    return turns
