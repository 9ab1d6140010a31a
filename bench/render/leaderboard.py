"""The leaderboard on a terminal: the columns that differ, and once above what does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.boards.columns import RIGHT, in_words, tabulate
from bench.boards.formats import boards, cost_text, notes
from bench.boards.leaderboard import RANKED
from bench.boards.rows import REPORTED, LeaderboardRow
from bench.render.console import console
from bench.render.tables import table

FOOT = (
    "Cost: evaluation equivalents per image; a classifier looks once at each. --wide shows every"
    " column, and each run."
)


def print_boards(rows: Sequence[LeaderboardRow], wide: bool = False) -> None:
    """Print a table for each dataset."""
    terminal = console()
    for title, board in boards(rows):
        sources: list[str] = []
        if wide:
            wide_table = tabulate(board)
            sources = wide_table.sources
            above = f"{title}\n{wide_table.above}".strip()
            runs = [row.run_id or "" for row in board]
            cells = [[*line, run] for line, run in zip(wide_table.cells, runs, strict=True)]
            table([*wide_table.head, "run"], cells, above, RIGHT)
        else:
            _print_narrow(title, board, sources)
        for number, source in enumerate(sources, start=1):
            terminal.print(f"({number}) {source}")
        if sources:
            terminal.print()
    terminal.print(RANKED, style="dim")
    if not wide:
        terminal.print(FOOT, style="dim")


def _print_narrow(title: str, board: Sequence[LeaderboardRow], sources: list[str]) -> None:
    """Print a board; what its own rows share, results of others aside, stands above once."""
    settings, params = in_words(board)
    facts = [_facts(row, sources) for row in board]
    own = [place for place, row in enumerate(board) if row.kind != REPORTED]
    own = own or list(range(len(board)))
    common = [fact for fact in facts[own[0]] if all(fact in facts[place] for place in own)]
    above = " · ".join([*common, settings] if settings else common)
    rows: list[list[Any]] = []
    for row, given, found in zip(board, params, facts, strict=True):
        interval = row.accuracy_ci95
        rows.append(
            [
                row.rank,
                f"{row.accuracy:.3f}",
                f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else None,
                cost_text(row),
                f"{row.strategy} {given}".strip(),
                ", ".join(fact for fact in found if fact not in common),
            ]
        )
    head = ["rank", "accuracy", "95 %", "cost", "strategy", "notes"]
    if not any(line[-1] for line in rows):
        head, rows = head[:-1], [line[:-1] for line in rows]
    numbers = {"rank", "accuracy", "cost"}
    table(head, rows, f"{title}\n{above}".strip(), numbers, optional=["95 %"])


def _facts(row: LeaderboardRow, sources: list[str]) -> list[str]:
    found = [row.backbone, *notes(row, sources)]
    if row.n_samples:
        found.append(f"{row.n_samples:,} images")
    if row.path is None and row.kind != REPORTED:
        found.append("published")
    return found
