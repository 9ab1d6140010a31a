"""The leaderboard and the stored runs on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from bench.boards.columns import (
    NO_VALUE,
    describe_settings,
    metric_columns,
    own_row_indices,
    tabulate,
)
from bench.boards.formats import assignments, boards, cost_text, label_texts
from bench.boards.inventory import InventoryRow
from bench.boards.leaderboard import RANKED
from bench.boards.rows import REPORTED, LeaderboardRow
from bench.boards.text import TextTable
from bench.render.tables import console, print_explained, print_rows, print_table

FOOT = (
    "Cost: evaluation equivalents per image; a classifier looks once at each. --wide shows every"
    " column, and each run."
)


def print_boards(rows: Sequence[LeaderboardRow], wide: bool = False) -> None:
    """Print a table per board; `wide` has all columns, and the run of each row."""
    terminal = console()
    for title, board in boards(rows):
        if wide:
            text = tabulate(board, title)
            lines = [[*line, r.run_id or ""] for line, r in zip(text.rows, board, strict=True)]
            print_table(replace(text, head=[*text.head, "run"], rows=lines))
        else:
            print_table(_narrow(title, board))
    terminal.print(RANKED, style="dim")
    if not wide:
        terminal.print(FOOT, style="dim")
    print_explained(FOOT)


def _narrow(title: str, board: Sequence[LeaderboardRow]) -> TextTable:
    sources: list[str] = []
    settings, params = describe_settings(board)
    facts = [_facts(row, sources) for row in board]
    own = own_row_indices(board)
    common = [fact for fact in facts[own[0]] if all(fact in facts[index] for index in own)]
    above = " · ".join([*common, settings] if settings else common)
    extra = [metric for metric in metric_columns(board) if not metric.column]
    rows = []
    for row, parameters, row_facts in zip(board, params, facts, strict=True):
        interval = row.shown_ci95
        rows.append(
            [
                NO_VALUE if row.rank is None else str(row.rank),
                f"{row.accuracy:.3f}",
                f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else NO_VALUE,
                *(NO_VALUE if (v := row.metric(m.name)) is None else f"{v:.4f}" for m in extra),
                cost_text(row),
                f"{row.strategy} {parameters}".strip(),
                ", ".join(fact for fact in row_facts if fact not in common),
            ]
        )
    words = [metric.words for metric in extra]
    head = ["rank", "accuracy", "95 %", *words, "cost", "strategy", "notes"]
    if not any(line[-1] for line in rows):
        head, rows = head[:-1], [line[:-1] for line in rows]
    right = frozenset({"rank", "accuracy", "cost", *words})
    return TextTable(title, head, rows, right, ("95 %",), above=above, sources=sources)


def _facts(row: LeaderboardRow, sources: list[str]) -> list[str]:
    facts = [row.backbone, *label_texts(row, sources)]
    if row.n_samples:
        facts.append(f"{row.n_samples:,} images")
    if row.path is None and row.kind != REPORTED:
        facts.append("published")
    return facts


def print_runs(rows: Sequence[InventoryRow], wide: bool = False) -> None:
    """Print a table per folder of runs, or with `wide` one table with all columns."""
    now = datetime.now(UTC)
    if wide:
        head = ["run", "dataset", "backbone", "strategy", "differs", "images", "accuracy", "age"]
        print_rows(
            [*head, "where"], [[*_cells(row, now), row.path] for row in rows], right={"accuracy"}
        )
        return
    for folder, group in groupby(rows, key=lambda row: str(Path(row.path).parent)):
        lines = []
        for row in group:
            name, *_, note, done, accuracy, started = _cells(row, now)
            lines.append([f"{name}\n  {note}" if note else name, done, accuracy, started])
        head = ["run", "images", "accuracy", "age"]
        print_rows(head, lines, folder, right={"accuracy"}, optional=["age"])


def _cells(row: InventoryRow, now: datetime) -> list[str | None]:
    name = row.run_id + (f" shard {row.shard}" if row.shard else "")
    data = f"{row.dataset}/{row.split}" if row.dataset else None
    facts = [assignments(row.differs), row.stopped, row.labels]
    note = row.error or " · ".join(filter(None, facts))
    done: str = row.status
    if row.done is not None and row.total is not None:
        done = f"{row.done:,}" if row.done == row.total else f"{row.done:,} of {row.total:,}"
        done += f", {row.failed:,} failed" if row.failed else ""
    accuracy = "–" if row.accuracy is None else f"{row.accuracy:.3f}"
    return [name, data, row.backbone, row.strategy, note, done, accuracy, age(row, now)]


def age(row: InventoryRow, now: datetime) -> str:
    """Return how long ago a run was started, in words: `3 days ago`."""
    try:
        seconds = (now - datetime.fromisoformat(row.created or "")).total_seconds()
    except (ValueError, TypeError):  # the date is missing or has no time zone
        return "–"
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {name}{'s' * (count > 1)} ago"
    return "now"
