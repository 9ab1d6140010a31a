"""The leaderboard on a terminal: the columns that differ, and once above what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.boards.formats import HEAD, RIGHT, Row, assignments, boards, lines, notes
from bench.boards.leaderboard import EQUIVALENTS
from bench.boards.settings import chosen
from bench.render.console import console
from bench.render.tables import table

FOOT = (
    "Cost: evaluation equivalents per image. A row without a rank is a subset, a replay or a"
    " result that others reported. --wide shows every column."
)


def print_boards(rows: Sequence[Row], wide: bool = False) -> None:
    """Print a table for each dataset."""
    terminal = console()
    for title, board in boards(rows):
        sources: list[str] = []
        if wide:
            cells, sources = lines(board)
            table(HEAD, cells, title=title, right=RIGHT)
        else:
            _print_narrow(title, board, sources)
        for number, source in enumerate(sources, start=1):
            terminal.print(f"({number}) {source}")
        if sources:
            terminal.print()
    if not wide:
        terminal.print(FOOT, style="dim")


def _print_narrow(title: str, board: Sequence[Row], sources: list[str]) -> None:
    """Print a board; what its own rows share, results of others aside, stands above once."""
    params = [chosen(row["strategy"], row["params"]) for row in board]
    facts = [_facts(row, sources) for row in board]
    own = [place for place, row in enumerate(board) if row["kind"] != "reported"]
    own = own or list(range(len(board)))
    shared = [fact for fact in facts[own[0]] if all(fact in facts[place] for place in own)]
    constant = _shared([params[place] for place in own])
    above = " · ".join([*shared, assignments(constant)] if constant else shared)
    rows = []
    for row, given, found in zip(board, params, facts, strict=True):
        interval, cost = row["accuracy_ci95"], row[EQUIVALENTS]
        differs = {name: value for name, value in given.items() if name not in constant}
        rows.append(
            [
                row["rank"],
                f"{row['accuracy']:.3f}",
                f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else None,
                None if cost is None else f"{cost:,.0f}",
                f"{row['strategy']} {assignments(differs)}".strip(),
                ", ".join(fact for fact in found if fact not in shared),
            ]
        )
    head = ["rank", "accuracy", "95 %", "cost", "strategy", "notes"]
    if not any(line[-1] for line in rows):
        head, rows = head[:-1], [line[:-1] for line in rows]
    numbers = {"rank", "accuracy", "cost"}
    table(head, rows, f"{title}\n{above}".strip(), numbers, optional=["95 %"])


def _facts(row: Row, sources: list[str]) -> list[str]:
    found, n = [row["backbone"], *notes(row, sources)], row["n_samples"]
    if n:
        found.append(f"{n:,} images")
    if row["path"] is None and row["kind"] != "reported":
        found.append("published")
    return found


def _shared(params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters that all have, with the same value."""
    first, *others = params
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }
