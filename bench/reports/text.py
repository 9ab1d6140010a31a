"""Escape untrusted names for each output format, and write tables in these formats.

Classes, images and backbones may have any name. No name may move a terminal's cursor, become an
HTML element, end a table or start a spreadsheet formula.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Self

from bench.contracts.metric_spec import signed
from bench.reports.facts import IN_LABEL, NONE, Column, Fact, Row

# Control characters (including the C1 block, which also starts escape sequences), bidirectional
# marks, line separators and unpaired surrogates.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)
# Underscores inside a word need no escape in Markdown.
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_FORMULA = ("=", "+", "-", "@")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
MAX_LINE_CHARACTERS = 2_000  # longer lines of messages are cut, because names may be long


def with_subject(name: str, reason: str) -> str:
    """Return `NAME: REASON`, or only the reason if it contains the name."""
    return reason if name in reason else f"{name}: {reason}"


def escape_hidden(text: object) -> str:
    """Return a name on one line, with invisible characters written as escapes."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def shorten(name: object, most: int = 24, middle: bool = True) -> str:
    """Return a name for a plot: on one line, and cut to `most` characters.

    It is cut in the `middle`, because the names of many classes differ at the end alone.
    """
    text, tail = escape_hidden(name), (most - 1) // 2 if middle else 0
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def escape_message(text: object) -> str:
    """Return a message for a terminal. Line breaks are kept, and long lines are cut."""
    lines = [
        line
        if len(line) <= MAX_LINE_CHARACTERS
        else f"{line[:MAX_LINE_CHARACTERS]} … ({len(line):,} characters)"
        for line in str(text).split("\n")
    ]
    return "\n".join(map(escape_hidden, lines))


def escape_html(text: object) -> str:
    """Escape a name for HTML, in the content of an element or in an attribute."""
    return escape(escape_hidden(text))


def prose_html(text: object) -> str:
    """Return a sentence as HTML, with what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape_html(text))


def escape_markdown(text: object) -> str:
    """Escape a name for a line or a table cell of GitHub-flavoured Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", escape(escape_hidden(text), quote=False))


def prose_markdown(text: object) -> str:
    """Return a sentence as Markdown, with what stands in backticks as code."""
    parts = re.split("(`[^`]+`)", escape_hidden(text))
    return "".join(
        part if len(part) > 2 and part[0] == part[-1] == "`" else escape_markdown(part)
        for part in parts
    )


def escape_csv_cell(value: Any) -> Any:
    """Escape a value for a CSV cell: text that a spreadsheet would compute gets a quote."""
    if not isinstance(value, str):
        return value
    text = escape_hidden(value)
    is_formula = text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def csv_text(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV that is safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(escape_csv_cell, head))
    writer.writerows(map(escape_csv_cell, row) for row in rows)
    return out.getvalue()


def escape_yaml(value: Any) -> Any:
    """Return a value for a YAML document, with its texts at any depth passed to `escape_hidden`."""
    if isinstance(value, Mapping):
        return {escape_yaml(key): escape_yaml(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape_yaml(item) for item in value]
    return escape_hidden(value) if isinstance(value, str) else value


_LATEX = {
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "≤": r"$\leq$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_TO_ESCAPE = re.compile("|".join(map(re.escape, _LATEX)))


Cell = Fact | str | int | float | None
"""A cell of a table."""


def cell_text(cell: Cell) -> str:
    """Return a cell as people read it."""
    if isinstance(cell, Fact):
        return cell.text
    if cell is None:
        return NONE
    if isinstance(cell, float):
        return f"{cell:.4f}" if abs(cell) <= 1 else f"{cell:,.1f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


@dataclass(frozen=True)
class Table:
    """A table whose cells keep their values; each format shows them by their units."""

    title: str  # heading
    head: list[str]  # names of the columns
    rows: Sequence[Sequence[Cell]]  # for each row one cell per column
    right: frozenset[str] = frozenset()  # columns that are aligned to the right, as numbers are
    optional: tuple[str, ...] = ()  # columns that a narrow terminal hides, the first one first
    below: list[str] = field(default_factory=list)  # paragraphs below the table
    more: list[str] = field(default_factory=list)  # further paragraphs, for those who ask
    above: str = ""  # line above the table, such as what all rows share
    sources: list[str] = field(default_factory=list)  # sources; cells refer to their numbers
    cut: frozenset[str] = frozenset()  # columns that a terminal cuts off instead of wrapping

    @property
    def wide(self) -> Self:
        """The table with all paragraphs below it."""
        return replace(self, below=[*self.below, *self.more], more=[])

    @property
    def numbered(self) -> list[str]:
        """The sources, each with its number, from 1."""
        return [f"({number}) {source}" for number, source in enumerate(self.sources, start=1)]

    @property
    def facts(self) -> list[list[Fact]]:
        """The cells as facts."""
        return [[c if isinstance(c, Fact) else Fact("", c) for c in row] for row in self.rows]

    @property
    def texts(self) -> list[list[str]]:
        """The cells as people read them."""
        return [[cell_text(cell) for cell in row] for row in self.rows]


def make_table(
    title: str, columns: Iterable[Column[Row]], rows: Iterable[Row], **more: Any
) -> Table:
    """Return the table of some rows; `more` are other fields of the table."""
    columns = list(columns)
    cells = [[column.fact(row) for column in columns] for row in rows]
    right = frozenset(column.label for column in columns if column.unit not in ("text", "bar"))
    return Table(title, [column.label for column in columns], cells, right, **more)


def to_markdown(tables: Sequence[Table]) -> str:
    """Return tables as GitHub-flavoured Markdown."""
    text: list[str] = []
    for table in tables:
        text += [f"**{escape_markdown(table.title)}**", ""]
        text += [escape_markdown(table.above), ""] if table.above else []
        text += [_pipes(map(escape_markdown, table.head))]
        text += [_pipes("--:" if name in table.right else "---" for name in table.head)]
        for texts, facts in zip(table.texts, table.facts, strict=True):
            text += [_pipes(map(_markdown_cell, texts, facts))]
        text += [""]
        text += [f"{escape_markdown(source)}  " for source in table.numbered]
        text += [""] if table.sources else []
        for paragraph in table.below:
            text += [prose_markdown(paragraph), ""]
    return "\n".join(text)


def _markdown_cell(text: str, fact: Fact) -> str:
    return f"~~{escape_markdown(text)}~~" if fact.struck else escape_markdown(text)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(tables: Sequence[Table]) -> str:
    """Return the values of tables as CSV, with an empty line between two tables.

    Values are not rounded, and shares are between 0 and 1. Intervals have two columns of their own.
    """
    return "\n".join(map(_table_csv, tables))


def _table_csv(table: Table) -> str:
    columns = zip(*table.facts, strict=True)
    with_interval = [index for index, facts in enumerate(columns) if any(f.interval for f in facts)]
    head = [name.removesuffix(IN_LABEL["share"]) for name in table.head]
    head += [f"{head[index]}, {end}" for index in with_interval for end in ("low", "high")]
    lines = []
    for row in table.facts:
        ends = [row[index].interval or (None, None) for index in with_interval]
        lines.append([*(fact.value for fact in row), *(end for pair in ends for end in pair)])
    return csv_text(head, lines)


def to_latex(tables: Sequence[Table]) -> str:
    """Return tables for LaTeX, with the packages that they need as a comment.

    At most two notes are set below a table; further ones follow it as comments.
    """
    text = [r"% In the preamble: \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for table in tables:
        columns = "".join("r" if name in table.right else "l" for name in table.head)
        caption = escape_latex(f"{table.title}. {table.above}" if table.above else table.title)
        text += [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
        text += [rf"\label{{tab:{_label(table.title)}}}"]
        text += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _ampersands(table.head)]
        text += [r"\midrule", *map(_ampersands, table.texts), r"\bottomrule", r"\end{tabular}"]
        notes = [*map(escape_latex, (*table.below, *table.numbered, *table.more))]
        text += [rf"\par\smallskip\footnotesize {note}" for note in notes[:2]]
        text += [r"\end{table}", *(f"% {note}" for note in notes[2:]), ""]
    return "\n".join(text)


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def escape_latex(text: object) -> str:
    """Escape text for LaTeX; the hyphen before a negative number becomes a minus sign."""
    shown = signed(escape_hidden(text))
    return _TO_ESCAPE.sub(lambda match: _LATEX[match[0]], shown)


def _label(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.partition(" (")[0].lower()).strip("-")
