"""The leaderboard and the stored runs on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from bench.reports.facts import Column
from bench.reports.formats import assignments
from bench.reports.leaderboard.board import CURRENCIES, make_boards
from bench.reports.leaderboard.ranking import RANKED
from bench.reports.leaderboard.rows import REPORTED, LeaderboardRow
from bench.reports.rows import Currency, accuracy_fact
from bench.reports.terminal.tables import console, print_explained, print_table
from bench.reports.text import make_table

if TYPE_CHECKING:
    from bench.reports.inventory import InventoryRow

FOOT = "Cost: evaluation equivalents per image; a classifier looks once at each."


def print_boards(
    rows: Sequence[LeaderboardRow],
    name: Callable[[LeaderboardRow], str],
    wide: bool = False,
    everything: bool = False,
    metric: str | None = None,
    currency: Currency = "evaluations",
) -> None:
    """Print a table per board; `wide` tables have all columns, and the `name` of each row's run.

    `metric` is a metric that gets a column, and `currency` what costs are counted in.
    Unless `everything` is shown, replays, controls and runs on corrupted images are left out, and
    so are boards of reported results alone if there are others.
    """
    terminal = console()
    shown = [[*board] for _, board in groupby(rows, key=lambda row: row.board)]
    if not everything:
        shown = [[row for row in board if not row.aside] or board for board in shown]
        own = [board for board in shown if any(row.kind != REPORTED for row in board)]
        shown = own or shown
    kept = [row for board in shown for row in board]
    for board in make_boards(kept, metric, currency):
        print_table(board.table("wide", name) if wide else board.table("narrow"))
    words = CURRENCIES[currency]
    foot = FOOT if currency == "evaluations" else f"{words[0].upper()}{words[1:]}."
    terminal.print(f"{RANKED} {foot}", style="dim")
    options = [] if wide else ["--wide: every column, and the run of each row."]
    if left_out := len(rows) - len(kept):
        options.append(f"--all: {left_out} more rows (replays, controls, corrupted, reported).")
    if options:
        terminal.print(" ".join(options), style="dim")
    print_explained(FOOT)


def print_runs(rows: Sequence[InventoryRow], wide: bool = False) -> None:
    """Print a table per folder of runs, one line per run, or with `wide` one with all columns."""
    now = datetime.now(UTC)
    shard: Column[InventoryRow] = Column(
        "run", lambda row: str(row.run_id) + (f" shard {row.shard}" if row.shard else "")
    )
    images: Column[InventoryRow] = Column("images", lambda row: row.images)
    differs = Column("what differs", _note)
    if wide:
        columns: list[Column[InventoryRow]] = [
            Column("run", lambda row: row.run_id),
            Column("dataset", lambda row: f"{row.dataset}/{row.split}"),
            Column("backbone", lambda row: row.backbone),
            Column("strategy", lambda row: row.strategy),
            images,
            Column("accuracy", accuracy_fact, "share"),
            Column("age", lambda row: age(row, now)),
            differs,
            Column("where", lambda row: row.path),
        ]
        print_table(make_table("", columns, rows))
        return
    columns = [shard, images, Column("accuracy", lambda row: row.accuracy, "share"), differs]
    for folder, group in groupby(rows, key=lambda row: str(Path(row.path).parent)):
        console().print(folder, style="bold")
        print_table(make_table("", columns, group, cut=frozenset({"what differs"})))


def _note(row: InventoryRow) -> str:
    notes = row.error, row.labels, row.stopped, assignments(row.differs)
    return " · ".join(filter(None, notes))


def age(row: InventoryRow, now: datetime) -> str:
    """Return how long ago a run was started, in words: `3 days`."""
    try:
        seconds = (now - datetime.fromisoformat(row.created or "")).total_seconds()
    except (ValueError, TypeError):  # the date is missing or has no time zone
        return "–"
    for unit, name in ((86400, "day"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {name}{'s' * (name == 'day' and count > 1)}"
    return "now"
