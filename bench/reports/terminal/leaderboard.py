"""The leaderboard and the stored runs on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench.reports.formats import assignments, boards, percent_text
from bench.reports.inventory import InventoryRow
from bench.reports.leaderboard.columns import tabulate
from bench.reports.leaderboard.ranking import RANKED
from bench.reports.leaderboard.rows import REPORTED, LeaderboardRow
from bench.reports.terminal.tables import console, print_explained, print_rows, print_table

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
    if wide:
        now = datetime.now(UTC)
        lines = [
            [
                *(row.run_id, f"{row.dataset}/{row.split}", row.backbone, row.strategy, row.images),
                *(_accuracy(row, row.shown_ci95), age(row, now), _note(row), row.path),
            ]
            for row in rows
        ]
        head = ["run", "dataset", "backbone", "strategy", "images", "accuracy, %", "age"]
        print_rows([*head, "what differs", "where"], lines)
        return
    head = ["run", "images", "accuracy, %", "what differs"]
    for folder, group in groupby(rows, key=lambda row: str(Path(row.path).parent)):
        lines = []
        for row in group:
            name = row.run_id + (f" shard {row.shard}" if row.shard else "")
            lines.append([name, row.images, _accuracy(row), _note(row)])
        console().print(folder, style="bold")
        print_rows(head, lines, right=head[1:3], cut=head[3:])


def _accuracy(row: InventoryRow, interval: tuple[float, float] | None = None) -> str:
    return "–" if row.accuracy is None else percent_text(row.accuracy, interval)


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
