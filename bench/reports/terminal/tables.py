"""Print text and tables on a terminal: names are never interpreted, tables fit any width."""

import re
from collections.abc import Collection, Sequence
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text
from typing_extensions import override

from bench.reports.formats import NONE
from bench.reports.text import Table, cell_text, escape_message

LEAST_CUT = 8  # characters of a column that may be cut off
EXPLAINED = ("cells", "draws", "plan", "equivalents", "ceiling", "bound")  # glossary terms


class PlainConsole(Console):
    """A console without markup, emoji codes and control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @override
    def render_str(self, text: str, **options: Any) -> Text:
        """Escape control characters; rich calls this for every string that it prints."""
        return super().render_str(escape_message(text), **options)


def console(stderr: bool = False) -> PlainConsole:
    """Return a console on the current stdout or stderr."""
    return PlainConsole(stderr=stderr)


def print_rows(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    right: Collection[str] = (),
    optional: Sequence[str] = (),
    cut: Collection[str] = (),
) -> None:
    """Print a table on stdout without breaking words or numbers, however narrow the terminal is.

    The columns `cut` have one line, which ends with an ellipsis where there is no room. If the
    longest words do not fit side by side, `optional` columns are left out in the order in which
    they are named, and a line below the table names them. If that is not enough, each row is
    printed as a block with one line per column. Columns of numbers and those in `right` are
    right-aligned, None is a dash, and the header is omitted if all names are empty.
    """
    terminal = console()
    optional = [column for column in optional if column in columns]
    if title:
        terminal.print(title, style="bold")
    cells = [[escape_message(cell_text(value)) for value in row] for row in rows]
    right = {*right, *_numeric_columns(columns, rows)}
    for left_out in range(len(optional) + 1):
        places = [p for p, column in enumerate(columns) if column not in optional[:left_out]]
        heads, shown = [columns[p] for p in places], [[row[p] for p in places] for row in cells]
        widths = _widths(terminal.width, heads, shown, right, cut)
        if widths is not None:
            terminal.print(_grid(heads, shown, widths, right, cut))
            hidden = [column for column in columns if column in optional[:left_out]]
            if hidden:
                terminal.print(f"A wider terminal also shows: {' · '.join(hidden)}", style="dim")
            break
    else:
        _print_blocks(terminal, columns, cells)
    if title:
        terminal.print()


def print_table(text: Table) -> None:
    """Print a table with what all rows share above it, and sources and notes below."""
    title = f"{text.title}\n{text.above}".strip()
    print_rows(text.head, text.texts, title, text.right, text.optional, text.cut)
    terminal = console()
    for source in text.numbered:
        terminal.print(source)
    if text.sources:
        terminal.print()
    for note in text.below:
        terminal.print(note)


def print_explained(*texts: str) -> None:
    """Print which glossary terms occur in `texts`, and the command that explains them."""
    shown = set(re.findall(r"\w+", " ".join(texts)))
    if words := [word for word in EXPLAINED if word in shown]:
        text = f"`bench explain WORD` says what is meant by {', '.join(words)}."
        console().print(text, style="dim")


def _numeric_columns(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> set[str]:
    values = zip(*rows, strict=True) if rows else iter(())
    return {
        column
        for column, held in zip(columns, values, strict=False)
        if all(isinstance(value, int | float) for value in held)
    }


def _widths(
    room: int,
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    right: Collection[str],
    cut: Collection[str],
) -> list[int] | None:
    """Return column widths of at least the longest words, or None if these do not fit.

    rich itself would narrow the widest column first, even below its longest word. The columns `cut`
    have at least `LEAST_CUT`.
    """
    least, most = [], []
    for place, column in enumerate(columns):
        lines = [
            line for text in [column, *(row[place] for row in cells)] for line in text.split("\n")
        ]
        most.append(max(map(cell_len, lines)))
        words = [word for line in lines for word in line.split()] if column not in right else lines
        longest = max(map(cell_len, words), default=0)
        least.append(min(longest, LEAST_CUT) if column in cut else longest)
    spare = room - sum(least) - 2 * len(columns)  # one space on each side of a cell
    if spare < 0:
        return None
    widths = list(least)
    order = sorted(range(len(columns)), key=lambda place: most[place] - least[place])
    for position, place in enumerate(order):  # small requests are met first
        sharing = len(columns) - position if columns[place] in cut else 1
        extra = min(most[place] - least[place], spare // sharing)
        widths[place] += extra
        spare -= extra
    return widths


def _grid(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    widths: Sequence[int],
    right: Collection[str],
    cut: Collection[str],
) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        show_header=any(columns),
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        grid.add_column(
            column, justify=justify, width=width, no_wrap=column in cut, overflow="ellipsis"
        )
    for row in cells:
        grid.add_row(*row)
    return grid


def _print_blocks(terminal: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for number, row in enumerate(rows):
        if number:
            terminal.print()
        for position, (column, cell) in enumerate(zip(columns, row, strict=True)):
            if cell and (cell != NONE or not position):
                line = f"{column}: {cell}" if column else cell
                indented = Padding(line, (0, 0, 0, 2 if position else 0), expand=False)
                terminal.print(indented, style=None if position else "bold")
