"""Escape untrusted names for each output format, and write tables in these formats.

Classes, images and backbones may have any name. No name may move a terminal's cursor, become an
HTML element, end a table or start a spreadsheet formula.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

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


def shorten(name: object, most: int = 24) -> str:
    """Return a name for a plot: on one line, and cut to `most` characters."""
    text = escape_hidden(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def escape_message(text: object) -> str:
    """Return a message for a terminal. Line breaks are kept, and long lines are cut."""
    return "\n".join(escape_hidden(_cut_line(line)) for line in str(text).split("\n"))


def escape_html(text: object) -> str:
    """Escape a name for HTML, in the content of an element or in an attribute."""
    return escape(escape_hidden(text))


def prose_html(text: object) -> str:
    """Return a sentence as HTML, with what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape_html(text))


def escape_markdown(text: object) -> str:
    """Escape a name for a line or a table cell of GitHub-flavoured Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", escape(escape_hidden(text), quote=False))


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


def _cut_line(line: str) -> str:
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    return f"{line[:MAX_LINE_CHARACTERS]} … ({len(line):,} characters)"


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
_NEGATIVE = re.compile(r"(?<![\w.)/-])-(?=\d)")
_TO_ESCAPE = re.compile("|".join(map(re.escape, _LATEX)))


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text."""

    title: str  # heading
    head: list[str]  # names of the columns
    rows: list[list[str]]  # for each row one text per column
    right: frozenset[str] = frozenset()  # columns that are aligned to the right, as numbers are
    optional: tuple[str, ...] = ()  # columns that a narrow terminal hides, the first one first
    below: list[str] = field(default_factory=list)  # paragraphs below the table
    above: str = ""  # line above the table, such as what all rows share
    sources: list[str] = field(default_factory=list)  # sources; cells refer to their numbers
    cut: frozenset[str] = frozenset()  # columns that a terminal cuts off instead of wrapping

    @property
    def numbered(self) -> list[str]:
        """The sources, each with its number, from 1."""
        return [f"({number}) {source}" for number, source in enumerate(self.sources, start=1)]


def format_tables(tables: Sequence[TextTable], form: str, title: str = "") -> str:
    """Return tables as `markdown`, `csv` or `latex`, or as an `html` page with a title."""
    if form == "html":
        return to_html(tables, title)
    return {"markdown": to_markdown, "csv": to_csv, "latex": to_latex}[form](tables)


def to_markdown(tables: Sequence[TextTable]) -> str:
    """Return tables as GitHub-flavoured Markdown."""
    text: list[str] = []
    for table in tables:
        text += [f"**{escape_markdown(table.title)}**", ""]
        text += [escape_markdown(table.above), ""] if table.above else []
        text += [_pipes(map(escape_markdown, table.head))]
        text += [_pipes("--:" if name in table.right else "---" for name in table.head)]
        text += [*(_pipes(map(escape_markdown, row)) for row in table.rows), ""]
        text += [f"{escape_markdown(source)}  " for source in table.numbered]
        text += [""] if table.sources else []
        for paragraph in table.below:
            text += [escape_markdown(paragraph), ""]
    return "\n".join(text)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(tables: Sequence[TextTable]) -> str:
    """Return the cells of tables as CSV, with an empty line between two tables."""
    return "\n".join(csv_text(table.head, table.rows) for table in tables)


def to_latex(tables: Sequence[TextTable]) -> str:
    """Return tables for LaTeX with `booktabs` and, for straight quotes, `fontenc` (T1)."""
    text = []
    for table in tables:
        columns = "".join("r" if name in table.right else "l" for name in table.head)
        text += [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(table.title)}}}"]
        text += [rf"\label{{tab:{_label(table.title)}}}"]
        text += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _ampersands(table.head)]
        text += [r"\midrule", *map(_ampersands, table.rows), r"\bottomrule", r"\end{tabular}"]
        text += [
            rf"\par\smallskip\footnotesize {escape_latex(paragraph)}" for paragraph in table.below
        ]
        text += [r"\end{table}", ""]
    return "\n".join(text)


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def escape_latex(text: object) -> str:
    """Escape text for LaTeX; the hyphen before a negative number becomes a minus sign."""
    signed = _NEGATIVE.sub("−", escape_hidden(text))
    return _TO_ESCAPE.sub(lambda match: _LATEX[match[0]], signed)


def _label(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def to_html(tables: Sequence[TextTable], title: str) -> str:
    """Return tables as a self-contained HTML page."""
    page = _PAGE.replace("TITLE", escape_html(title))
    return "\n".join([page, *map(html_part, tables), "</body></html>", ""])


def html_part(table: TextTable) -> str:
    """Return a table with its heading and paragraphs as an HTML fragment, without a page."""
    text = [f"<h2>{escape_html(table.title)}</h2>"]
    text += [f"<p>{escape_html(table.above)}</p>"] if table.above else []
    text += [html_table(table)]
    text += [f"<p>{prose_html(note)}</p>" for note in (*table.numbered, *table.below)]
    return "\n".join(text)


def html_table(table: TextTable) -> str:
    """Return the head and the rows of a table as an HTML element."""
    kinds = ["number" if name in table.right else "text" for name in table.head]

    def row_html(tag: str, cells: Sequence[str]) -> str:
        pairs = zip(kinds, cells, strict=True)
        return "".join(f'<{tag} class="{kind}">{escape_html(text)}</td>' for kind, text in pairs)

    head = row_html('th scope="col"', table.head).replace("</td>", "</th>")
    rows = "\n".join(f"<tr>{row_html('td', row)}</tr>" for row in table.rows)
    return f'<table class="plain"><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title><style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
.number { text-align: right; font-variant-numeric: tabular-nums }
</style></head><body><h1>TITLE</h1>"""
