"""The terminal: what is printed on it is text, whoever named it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.boards.text import message


class PlainConsole(Console):
    """A console that shows every string as it is: no markup, no emoji codes, no control codes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the string as rich's text; rich calls this for all that it prints."""
        return super().render_str(message(text), **options)


def console(stderr: bool = False) -> PlainConsole:
    """Return a console on today's stdout, or stderr."""
    return PlainConsole(stderr=stderr)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    right: Collection[str] = (),
) -> None:
    """Print a table on stdout; numbers, and the columns named in `right`, stand right."""
    grid = Table(title=title or None, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        numbers = all(isinstance(row[position], int | float) for row in rows) and bool(rows)
        grid.add_column(
            column, justify="right" if numbers or column in right else "left", overflow="fold"
        )
    for row in rows:
        grid.add_row(*[shown(value) for value in row])
    console().print(grid)


def shown(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
