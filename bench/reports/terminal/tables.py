"""Print text and tables on a terminal: names are never interpreted, tables fit any width."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text
from typing_extensions import override

from bench.reports.facts import NONE, Fact
from bench.reports.text import Table, cell_text, escape_message

LEAST_CUT = 9  # smallest width of a column that is cut off, in characters


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
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    right: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> None:
    """Print a table of rows; `right` and `optional` name columns, as in `Table`."""
    print_table(Table(title, list(head), rows, frozenset(right), tuple(optional)))


def print_table(table: Table) -> None:
    """Print a table on stdout without breaking words or numbers, however narrow the terminal is.

    Cells of the columns `cut`, and the sources if `cut` contains "sources", have one line each,
    which ends with an ellipsis where there is no room; but cells that tell a row apart from one
    that would read alike are wrapped. If the longest words do not fit side by side, `optional`
    columns are left out in the order in which they are named, and a line below the table names
    them. If that is not enough, each row is printed as a block with one line per column. Columns of
    numbers and those in `right` are right-aligned, None is a dash, and the header is omitted if all
    names are empty. What all rows share is above the table; sources and notes are below it.
    """
    terminal, columns = console(), _columns(table)
    if title := f"{table.title}\n{table.above}".strip():
        terminal.print(title, style="bold")
    optional = [name for name in table.optional if name in table.head]
    for left_out in range(len(optional) + 1):
        shown = [column for column in columns if column.name not in optional[:left_out]]
        if (widths := _widths(terminal.width, shown)) is not None:
            terminal.print(_grid(shown, widths))
            hidden = [column.name for column in columns if column not in shown]
            if hidden:
                terminal.print(f"A wider terminal also shows: {' · '.join(hidden)}", style="dim")
            break
    else:
        _print_blocks(terminal, columns)
    if title:
        terminal.print()
    for source in table.numbered:
        terminal.print(source, no_wrap="sources" in table.cut, overflow="ellipsis")
    if table.sources:
        terminal.print()
    for note in table.below:
        terminal.print(note)


@dataclass(frozen=True)
class _Column:
    """A column of a table on a terminal."""

    name: str
    cells: list[str]
    right: bool  # whether it is aligned to the right
    cut: bool  # whether it is cut off instead of wrapped
    struck: list[bool]  # whether each cell is struck through

    @property
    def widths(self) -> tuple[int, int]:
        """The smallest width, that of the longest word or `LEAST_CUT`, and the largest one."""
        lines = [line for text in (self.name, *self.cells) for line in text.split("\n")]
        words = lines if self.right else [word for line in lines for word in line.split()]
        longest = max(map(cell_len, words), default=0)
        least = min(longest, LEAST_CUT) if self.cut else longest
        return least, max(map(cell_len, lines))

    def cut_cells(self, width: int) -> list[str]:
        """Return the cells as they read in a column of this width."""
        texts = [Text(cell) for cell in self.cells]
        for text in texts if self.cut else ():
            text.truncate(width, overflow="ellipsis")
        return [text.plain for text in texts]


def _columns(table: Table) -> list[_Column]:
    columns = []
    for place, name in enumerate(table.head):
        values = [row[place] for row in table.rows]
        numbers = bool(values) and all(isinstance(value, int | float) for value in values)
        cells = [escape_message(cell_text(value)) for value in values]
        struck = [isinstance(value, Fact) and value.struck for value in values]
        right = numbers or name in table.right
        columns.append(_Column(name, cells, right, name in table.cut, struck))
    return columns


def _widths(room: int, columns: Sequence[_Column]) -> list[int] | None:
    """Return column widths of at least the longest words, or None if these do not fit.

    rich itself would narrow the widest column first, even below its longest word.
    """
    least, most = zip(*(column.widths for column in columns), strict=True)
    spare = room - sum(least) - 2 * len(columns)  # one space on each side of a cell
    if spare < 0:
        return None
    widths = list(least)
    order = sorted(range(len(columns)), key=lambda place: most[place] - least[place])
    for position, place in enumerate(order):  # small requests are met first
        sharing = len(columns) - position if columns[place].cut else 1
        extra = min(most[place] - least[place], spare // sharing)
        widths[place] += extra
        spare -= extra
    return widths


def _alike_when_cut(columns: Sequence[_Column], widths: Sequence[int]) -> list[bool]:
    """Return for each row whether its texts, when cut, read like those of a different row."""
    of_text = [(c, width) for c, width in zip(columns, widths, strict=True) if not c.right]
    cut_rows = list(zip(*(column.cut_cells(width) for column, width in of_text), strict=True))
    rows_by_cut: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for cut, row in zip(cut_rows, zip(*(c.cells for c, _ in of_text), strict=True), strict=True):
        rows_by_cut.setdefault(cut, set()).add(row)
    return [len(rows_by_cut[cut]) > 1 for cut in cut_rows] or [False] * len(columns[0].cells)


def _grid(columns: Sequence[_Column], widths: Sequence[int]) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        show_header=any(column.name for column in columns),
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.right else "left"
        grid.add_column(
            column.name, justify=justify, width=width, no_wrap=column.cut, overflow="ellipsis"
        )
    for row, wrapped in enumerate(_alike_when_cut(columns, widths)):
        cells = [
            Text(
                column.cells[row],
                style="strike" if column.struck[row] else "",
                no_wrap=column.cut and not wrapped,
                overflow="fold" if wrapped else "ellipsis",
            )
            for column in columns
        ]
        grid.add_row(*cells)
    return grid


def _print_blocks(terminal: Console, columns: Sequence[_Column]) -> None:
    """Print each row as a block: the first column in bold, and below it the known values."""
    for row in range(len(columns[0].cells)):
        if row:
            terminal.print()
        for position, column in enumerate(columns):
            cell = column.cells[row]
            if cell and (cell != NONE or not position):
                line = f"{column.name}: {cell}" if column.name else cell
                indented = Padding(line, (0, 0, 0, 2 if position else 0), expand=False)
                terminal.print(indented, style=None if position else "bold")
