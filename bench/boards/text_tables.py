"""Tables of text in every format that a paper, a README, a spreadsheet or a page takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.boards.text import csv_text, html, markdown, visible

_LATEX = {
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


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text."""

    title: str  # heading
    head: list[str]  # names of the columns
    rows: list[list[str]]  # for each row one text per column
    right: frozenset[str] = frozenset()  # columns that are aligned to the right, as numbers are
    optional: tuple[str, ...] = ()
    """Columns that a narrow terminal leaves out, the first of them first."""
    below: list[str] = field(default_factory=list)  # what a reader must know, one paragraph each
    above: str = ""  # what all rows share; empty where that is nothing
    sources: list[str] = field(default_factory=list)
    """Where rows come from, in the order of the numbers by which cells name them."""

    @property
    def numbered(self) -> list[str]:
        """The sources, each after its number."""
        return [f"({number}) {source}" for number, source in enumerate(self.sources, start=1)]


def to_markdown(tables: Sequence[TextTable]) -> str:
    """Return GitHub's Markdown."""
    text: list[str] = []
    for table in tables:
        text += [f"**{markdown(table.title)}**", ""]
        text += [markdown(table.above), ""] if table.above else []
        text += [_pipes(map(markdown, table.head))]
        text += [_pipes("--:" if name in table.right else "---" for name in table.head)]
        text += [*(_pipes(map(markdown, row)) for row in table.rows), ""]
        text += [f"{markdown(source)}  " for source in table.numbered]
        text += [""] if table.sources else []
        for paragraph in table.below:
            text += [markdown(paragraph), ""]
    return "\n".join(text)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(tables: Sequence[TextTable]) -> str:
    """Return CSV without the texts; several tables are separated by an empty line."""
    return "\n".join(csv_text(table.head, table.rows) for table in tables)


def to_latex(tables: Sequence[TextTable]) -> str:
    """Return tables for LaTeX with the package `booktabs`."""
    text = []
    for table in tables:
        columns = "".join("r" if name in table.right else "l" for name in table.head)
        text += [r"\begin{table}", r"\centering", rf"\caption{{{latex(table.title)}}}"]
        text += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _ampersands(table.head)]
        text += [r"\midrule", *map(_ampersands, table.rows), r"\bottomrule", r"\end{tabular}"]
        text += [f"\n{latex(paragraph)}" for paragraph in table.below]
        text += [r"\end{table}", ""]
    return "\n".join(text)


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(map(latex, cells)) + r" \\"


def latex(text: object) -> str:
    """Return text for LaTeX."""
    return _TO_ESCAPE.sub(lambda match: _LATEX[match[0]], visible(text))


def to_html(tables: Sequence[TextTable], title: str) -> str:
    """Return a page that needs no other file."""
    page = _PAGE.replace("TITLE", html(title))
    return "\n".join([page, *map(html_part, tables), "</body></html>", ""])


def html_part(table: TextTable) -> str:
    """Return a table with its heading and what a reader must know, for a page or a notebook."""
    sides = ["right" if name in table.right else "left" for name in table.head]
    text = [f"<h2>{html(table.title)}</h2>"]
    text += [f"<p>{html(table.above)}</p>"] if table.above else []
    head = "".join(f"<th>{html(name)}</th>" for name in table.head)
    text += [f"<table><thead><tr>{head}</tr></thead><tbody>"]
    for row in table.rows:
        cells = zip(sides, row, strict=True)
        shown = "".join(f'<td class="{side}">{html(cell)}</td>' for side, cell in cells)
        text += [f"<tr>{shown}</tr>"]
    paragraphs = (*table.numbered, *table.below)
    text += ["</tbody></table>", *(f"<p>{html(paragraph)}</p>" for paragraph in paragraphs)]
    return "\n".join(text)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title><style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
.right { text-align: right; font-variant-numeric: tabular-nums }
</style></head><body><h1>TITLE</h1>"""
