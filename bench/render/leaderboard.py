"""The leaderboard and the stored runs on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench.boards.columns import tabulate
from bench.boards.formats import assignments, boards, percent_text
from bench.boards.inventory import InventoryRow
from bench.boards.leaderboard import RANKED
from bench.boards.rows import REPORTED, LeaderboardRow
from bench.render.tables import console, print_explained, print_rows, print_table

FOOT = "Cost: evaluation equivalents per image; a classifier looks once at each."


def print_boards(
    rows: Sequence[LeaderboardRow],
    name: Callable[[LeaderboardRow], str],
    wide: bool = False,
    everything: bool = False,
) -> None:
    """Print a table per board; `wide` tables have all columns, and the `name` of each row's run.

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
    for title, board in boards(kept):
        print_table(tabulate(board, title, not wide, name if wide else None))
    terminal.print(f"{RANKED} {FOOT}", style="dim")
    options = [] if wide else ["--wide: every column, and the run of each row."]
    if left_out := len(rows) - len(kept):
        options.append(f"--all: {left_out} more rows (replays, controls, corrupted, reported).")
    if options:
        terminal.print(" ".join(options), style="dim")
    print_explained(FOOT)


def print_runs(rows: Sequence[InventoryRow], wide: bool = False) -> None:
    """Print a table per folder of runs, one line per run, or with `wide` one with all columns."""
    now = datetime.now(UTC)
    head = ["run", "images", "accuracy, %", "age", "what differs"]
    if wide:
        lines = []
        for row in rows:
            kind = [f"{row.dataset}/{row.split}", row.backbone, row.strategy]
            lines.append([row.run_id, *kind, *_facts(row, now, row.shown_ci95), row.path])
        head = [head[0], "dataset", "backbone", "strategy", *head[1:], "where"]
        print_rows(head, lines)
        return
    for folder, group in groupby(rows, key=lambda row: str(Path(row.path).parent)):
        lines = []
        for row in group:
            name = row.run_id + (f" shard {row.shard}" if row.shard else "")
            lines.append([name, *_facts(row, now)])
        print_rows(head, lines, folder, {"images", "accuracy, %"}, ["age"], ["what differs"])


def _facts(
    row: InventoryRow, now: datetime, interval: tuple[float, float] | None = None
) -> list[str]:
    accuracy = "–" if row.accuracy is None else percent_text(row.accuracy, interval)
    notes = row.error, row.labels, row.stopped, assignments(row.differs)
    return [row.images, accuracy, age(row, now), " · ".join(filter(None, notes))]


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
