"""Run against run on the report's page: each dataset's runs in pairs, and what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from bench.errors import UserError
from bench.render.board import Board, Entry
from bench.render.runs import RunData
from bench.stats.comparison import Comparison, compare_decided
from bench.stats.paired import shared_rows
from bench.store.arrow import indices

MOST_RUNS = 8  # of a dataset that are compared in pairs
MOST_PAIRS = 4  # of which the best run's details are shown
MOST_IMAGES = 20  # listed of a pair


@dataclass(frozen=True)
class Changed:
    """An image that two runs decide otherwise."""

    sample_id: str
    true: str
    said_a: str
    said_b: str


@dataclass(frozen=True)
class Pair:
    """Run B against run A, with their keys on the board."""

    key_a: str
    key_b: str
    found: Comparison
    changed: list[Changed]
    total: int
    """Images that are decided otherwise."""


@dataclass(frozen=True)
class Against:
    """The runs of one dataset against each other.

    Attributes:
        name: of the board.
        entries: the best runs, best first.
        cells: for each run in rows against each in columns the comparison; None: of itself, and
            where two do not compare.
        pairs: the best run against those that follow it.
    """

    name: str
    entries: list[Entry]
    cells: list[list[Comparison | None]]
    pairs: list[Pair]


def against(boards: Sequence[Board], runs: Mapping[str, RunData]) -> list[Against]:
    """Return the comparisons of each board that has two runs on the page or more.

    Args:
        boards: the boards on the page.
        runs: by the id of their section on the page.
    """
    found = []
    for board in boards:
        entries = [entry for entry in board.entries if entry.anchor][:MOST_RUNS]
        compared: dict[tuple[int, int], Comparison] = {}
        for row, column in combinations(range(len(entries)), 2):
            a, b = runs[entries[row].anchor], runs[entries[column].anchor]
            try:
                compared[row, column] = compare_decided(
                    (b.manifest, a.manifest), (b.decided, a.decided)
                )
                compared[column, row] = compare_decided(
                    (a.manifest, b.manifest), (a.decided, b.decided)
                )
            except UserError:  # other classes, or no image of both
                continue
        if not compared:
            continue
        size = range(len(entries))
        cells = [[compared.get((row, column)) for column in size] for row in size]
        pairs = [
            _pair(entries[0], entries[place], runs, compared[place, 0])
            for place in range(1, min(len(entries), MOST_PAIRS + 1))
            if (place, 0) in compared
        ]
        found.append(Against(board.name, entries, cells, pairs))
    return found


def _pair(a: Entry, b: Entry, runs: Mapping[str, RunData], found: Comparison) -> Pair:
    one, other = runs[a.anchor], runs[b.anchor]
    rows_a, rows_b = shared_rows(one.decided, other.decided)
    kept = one.decided.predictions[rows_a] != other.decided.predictions[rows_b]
    rows_a, rows_b = rows_a[kept], rows_b[kept]
    # Where B alone is right, or A alone, before those that both have wrong.
    both_wrong = ~(one.decided.correct[rows_a] | other.decided.correct[rows_b])
    order = np.argsort(both_wrong, kind="stable")[:MOST_IMAGES]
    ids = one.decided.sample_ids.take(indices(rows_a[order])).to_pylist()
    changed = [
        Changed(
            name,
            one.classes[one.decided.labels[of_a]],
            _said(one, of_a),
            _said(other, of_b),
        )
        for name, of_a, of_b in zip(ids, rows_a[order], rows_b[order], strict=True)
    ]
    return Pair(a.key, b.key, found, changed, len(rows_a))


def _said(run: RunData, row: int) -> str:
    said = int(run.decided.predictions[row])
    return "failed" if said < 0 else run.classes[said]
