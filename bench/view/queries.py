"""What a page's address asks for: which rows, in which order, and which of their pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from bench.boards.formats import assignments
from bench.stats.paired import shared_rows
from bench.store.decisions import Decisions
from bench.view.stored import Line

RUNS, PICTURES = 100, 60  # on a page
ODD_BYTES = "surrogateescape"  # a folder's name need not be UTF-8

Row = TypeVar("Row")
Query = dict[str, str]


@dataclass(frozen=True)
class Part(Generic[Row]):
    """One page of many rows.

    Attributes:
        rows: those on it.
        total: of all pages.
        page: its number, from 1 on.
        pages: how many there are, one at least.
    """

    rows: Sequence[Row]
    total: int
    page: int
    pages: int


def part(rows: Sequence[Row], asked: str | None, size: int) -> Part[Row]:
    """Return the page asked for; of a number that is none, the nearest."""
    pages = max(1, -(-len(rows) // size))
    wanted = int(asked) if asked and asked.isdecimal() and len(asked) < 10 else 1
    page = min(max(1, wanted), pages)
    return Part(rows[(page - 1) * size : page * size], len(rows), page, pages)


def address(path: str, query: Query, **changes: str | int | None) -> str:
    """Return an address with some values changed; None and "" leave one out."""
    values = {**query, **{k: "" if v is None else str(v) for k, v in changes.items()}}
    kept = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(kept, errors=ODD_BYTES)}" if kept else path


# Column → what it sorts by; what is None stands last.
RUN_COLUMNS: dict[str, Callable[[Line], Any]] = {
    "run": lambda line: line.row.run_id,
    "dataset": lambda line: f"{line.row.dataset}/{line.row.split}",
    "accuracy": lambda line: line.row.accuracy,
    "cost": lambda line: line.cost,
    "images": lambda line: line.row.done,
    "status": lambda line: line.row.status,
    "started": lambda line: line.row.created,
}
_FIRST_DOWN = ("accuracy", "images", "started")  # read from the largest


def opposite(column: str, query: Query) -> str:
    """Return the order that a click on a column's head asks for."""
    first = "down" if column in _FIRST_DOWN else "up"
    if query.get("sort") != column:
        return first
    return {"up": "down", "down": "up"}.get(query.get("order", first), first)


def chosen_runs(lines: Sequence[Line], query: Query) -> list[Line]:
    """Return the runs that fit the words and the status asked for, in the order asked for."""
    words = query.get("find", "").lower().split()
    status = query.get("status", "")
    found = [
        line
        for line in lines
        if status in ("", line.row.status) and all(word in _text(line) for word in words)
    ]
    column = query.get("sort", "started")
    value = RUN_COLUMNS.get(column, RUN_COLUMNS["started"])
    down = query.get("order", "down" if column in _FIRST_DOWN else "up") == "down"
    known = [line for line in found if value(line) is not None]
    unknown = [line for line in found if value(line) is None]
    return [*sorted(known, key=value, reverse=down), *unknown]


def _text(line: Line) -> str:
    row = line.row
    said = (
        row.run_id,
        row.dataset,
        row.split,
        row.backbone,
        row.strategy,
        assignments(row.differs),
    )
    return " ".join(filter(None, said)).lower()


def chosen_samples(decided: Decisions, classes: Sequence[str], query: Query) -> NDArray[np.int64]:
    """Return the rows of a run's images that are asked for, int64, in the order asked for.

    Without a wish: mistakes, the widest margin first.
    """
    show = query.get("show", "wrong")
    kept = {
        "wrong": ~decided.correct,
        "right": decided.correct,
        "failed": decided.failed,
    }.get(show, np.ones(len(decided), bool))
    for name, column in (("true", decided.labels), ("said", decided.predictions)):
        if query.get(name):
            wanted = classes.index(query[name]) if query[name] in classes else -9
            kept = kept & (column == wanted)
    rows = np.flatnonzero(kept)
    order = query.get("sort", "widest")
    if order == "order":
        return rows
    if order == "cost":
        return rows[np.argsort(-decided.equivalents[rows], kind="stable")]
    margins = np.nan_to_num(decided.margins[rows])
    return rows[np.argsort(margins if order == "closest" else -margins, kind="stable")]


def changed_samples(
    a: Decisions, b: Decisions, show: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows in A and in B of images that both decided.

    Args:
        a: the baseline's decisions.
        b: the other run's.
        show: `wins`, which B alone has right; `losses`, which A alone has; `changed`, all that
            are decided otherwise; `wrong`, which both have wrong.
    """
    rows_a, rows_b = shared_rows(a, b)
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    kept = {
        "wins": right_b & ~right_a,
        "losses": right_a & ~right_b,
        "wrong": ~right_a & ~right_b,
    }.get(show, a.predictions[rows_a] != b.predictions[rows_b])
    return rows_a[kept], rows_b[kept]
