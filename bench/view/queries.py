"""Queries of addresses: filter, sort and paginate runs and images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import numpy as np

from bench.contracts.strategy import Ints
from bench.reports.formats import assignments
from bench.reports.inventory import InventoryRow
from bench.store.decisions import Decisions

RUNS, PICTURES = 100, 60  # per page
ODD_BYTES = "surrogateescape"  # folder names need not be UTF-8

Row = TypeVar("Row")
Query = dict[str, str]


@dataclass(frozen=True)
class RowsPage(Generic[Row]):
    """One page of many rows."""

    rows: Sequence[Row]
    total: int  # number of rows on all pages
    page: int  # number of this page, from 1 on
    pages: int  # at least 1


def paginate(rows: Sequence[Row], number: str | None, size: int) -> RowsPage[Row]:
    """Return page `number`, clamped to the existing pages."""
    pages = max(1, -(-len(rows) // size))
    wanted = int(number) if number and number.isdecimal() and len(number) < 10 else 1
    page = min(max(1, wanted), pages)
    return RowsPage(rows[(page - 1) * size : page * size], len(rows), page, pages)


def address(path: str, query: Query, **changes: str | int | None) -> str:
    """Return an address with changed query values; None or "" removes one."""
    values = {**query, **{k: "" if v is None else str(v) for k, v in changes.items()}}
    kept = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(kept, errors=ODD_BYTES)}" if kept else path


# Column → sort key; rows whose key is None come last.
RUN_COLUMNS: dict[str, Callable[[InventoryRow], Any]] = {
    "run": lambda row: row.run_id,
    "accuracy": lambda row: row.accuracy,  # a phone shows the first columns alone
    "images": lambda row: row.n_samples,
    "status": lambda row: row.state,
    "dataset": lambda row: f"{row.dataset}/{row.split}",
    "cost": lambda row: row.cost,
    "started": lambda row: row.created,
}
_FIRST_DOWN = ("accuracy", "images", "started")  # sorted from the largest at first


def next_order(column: str, query: Query) -> str:
    """Return the sort order, `up` or `down`, that a click on the column's heading selects."""
    first = "down" if column in _FIRST_DOWN else "up"
    if query.get("sort") != column:
        return first
    return {"up": "down", "down": "up"}.get(query.get("order", first), first)


def select_runs(lines: Sequence[InventoryRow], query: Query) -> list[InventoryRow]:
    """Return the runs that match the query's words, status and tag, sorted as it says."""
    words = query.get("find", "").lower().split()
    status, tag = query.get("status", ""), query.get("tag", "")
    matching = [
        line
        for line in lines
        if status in ("", line.status)
        and (not tag or tag in line.tags)
        and all(word in _searchable_text(line) for word in words)
    ]
    column = query.get("sort", "started")
    value = RUN_COLUMNS.get(column, RUN_COLUMNS["started"])
    down = query.get("order", "down" if column in _FIRST_DOWN else "up") == "down"
    valued = [line for line in matching if value(line) is not None]
    others = [line for line in matching if value(line) is None]
    return [*sorted(valued, key=value, reverse=down), *others]


def _searchable_text(line: InventoryRow) -> str:
    row = line
    facts = (row.run_id, row.dataset, row.split, row.backbone, row.strategy, row.labels)
    return " ".join(filter(None, (*facts, assignments(row.differs)))).lower()


def select_samples(
    decided: Decisions,
    classes: Sequence[str],
    query: Query,
    columns: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Ints:
    """Return the rows of images that match the query, int64; by default mistakes by margin.

    `columns` are further labels, name → sample id → label, filtered by the query's `column` and
    `value`.
    """
    show = query.get("show", "wrong")
    choices = {"wrong": ~decided.correct, "right": decided.correct, "failed": decided.failed}
    kept = choices.get(show, np.ones(len(decided), bool))
    for name, column in (("true", decided.labels), ("predicted", decided.predictions)):
        if query.get(name):
            wanted = classes.index(query[name]) if query[name] in classes else -9
            kept = kept & (column == wanted)
    if (labels := columns.get(query.get("column", ""))) is not None and query.get("value"):
        value = query["value"]
        kept = kept & [labels.get(s) == value for s in decided.sample_ids.to_pylist()]
    rows = np.flatnonzero(kept)
    order = query.get("sort", "widest")
    if order == "order":
        return rows
    if order == "cost":
        return rows[np.argsort(-decided.equivalents[rows], kind="stable")]
    margins = np.nan_to_num(decided.margins[rows])
    return rows[np.argsort(margins if order == "closest" else -margins, kind="stable")]
