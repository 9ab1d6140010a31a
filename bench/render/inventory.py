"""The stored runs as a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench.boards.formats import assignments
from bench.boards.inventory import InventoryRow
from bench.render.tables import table


def print_runs(rows: Sequence[InventoryRow], wide: bool = False) -> None:
    """Print a table for each folder of runs, or one with a column for each fact."""
    now = datetime.now(UTC)
    if wide:
        head = ["run", "dataset", "backbone", "strategy", "differs", "images", "accuracy", "age"]
        table([*head, "where"], [_wide(row, now) for row in rows], right={"accuracy"})
        return
    for folder, group in groupby(rows, key=lambda row: str(Path(row.path).parent)):
        lines = [_narrow(row, now) for row in group]
        head = ["run", "images", "accuracy", "age"]
        table(head, lines, folder, right={"accuracy"}, optional=["age"])


def _narrow(row: InventoryRow, now: datetime) -> list[str]:
    note = row.error or assignments(row.differs)
    return [_name(row) + (f"\n  {note}" if note else ""), _done(row), _accuracy(row), age(row, now)]


def _wide(row: InventoryRow, now: datetime) -> list[str | None]:
    data = f"{row.dataset}/{row.split}" if row.dataset else None
    facts = [_name(row), data, row.backbone, row.strategy, row.error or assignments(row.differs)]
    return [*facts, _done(row), _accuracy(row), age(row, now), row.path]


def _name(row: InventoryRow) -> str:
    return row.run_id + (f" shard {row.shard}" if row.shard else "")


def _done(row: InventoryRow) -> str:
    if row.done is None or row.total is None:
        return row.status
    done = f"{row.done:,}" if row.done == row.total else f"{row.done:,} of {row.total:,}"
    return done + (f", {row.failed:,} failed" if row.failed else "")


def _accuracy(row: InventoryRow) -> str:
    return "–" if row.accuracy is None else f"{row.accuracy:.3f}"


def age(row: InventoryRow, now: datetime) -> str:
    """Return how long ago a run was started, in words: `3 days`."""
    try:
        seconds = (now - datetime.fromisoformat(row.created or "")).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a time zone
        return "–"
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {name}{'s' * (count > 1)}"
    return "now"
