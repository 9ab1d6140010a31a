"""Tables of text in every format that a paper, a README, a spreadsheet or a page takes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.boards.text import csv_cell, html, markdown, visible

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
    """A table whose cells are text.

    Attributes:
        title: what it is of.
        head: the columns' names.
        rows: for each row one text per column.
        right: columns that stand right, as numbers do.
        optional: columns that a narrow terminal does without, the first named first.
        below: what a reader must know, a paragraph each.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    right: frozenset[str] = frozenset()
    optional: tuple[str, ...] = ()
    below: list[str] = field(default_factory=list)


def to_markdown(tables: Sequence[TextTable]) -> str:
    """Return GitHub's Markdown."""
    text: list[str] = []
    for one in tables:
        text += [f"**{markdown(one.title)}**", "", _pipes([markdown(n) for n in one.head])]
        text += [_pipes(["--:" if name in one.right else "---" for name in one.head])]
        text += [_pipes([markdown(cell) for cell in row]) for row in one.rows]
        text += [""]
        for said in one.below:
            text += [markdown(said), ""]
    return "\n".join(text)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(tables: Sequence[TextTable]) -> str:
    """Return CSV; of several tables, each after an empty line, and the texts are left out."""
    parts = []
    for one in tables:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(csv_cell, one.head))
        writer.writerows([csv_cell(cell) for cell in row] for row in one.rows)
        parts.append(out.getvalue())
    return "\n".join(parts)


def to_latex(tables: Sequence[TextTable]) -> str:
    """Return tables for LaTeX with the package `booktabs`."""
    text = []
    for one in tables:
        columns = "".join("r" if name in one.right else "l" for name in one.head)
        text += [r"\begin{table}", r"\centering", rf"\caption{{{latex(one.title)}}}"]
        text += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _ampersands(one.head)]
        text += [r"\midrule", *map(_ampersands, one.rows), r"\bottomrule", r"\end{tabular}"]
        text += [f"\n{latex(said)}" for said in one.below]
        text += [r"\end{table}", ""]
    return "\n".join(text)


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(map(latex, cells)) + r" \\"


def latex(text: object) -> str:
    """Return text for LaTeX."""
    return _TO_ESCAPE.sub(lambda match: _LATEX[match[0]], visible(text))


def to_html(tables: Sequence[TextTable], title: str) -> str:
    """Return a page that needs nothing else."""
    text = [_PAGE.replace("TITLE", html(title))]
    for one in tables:
        head = "".join(f"<th>{html(name)}</th>" for name in one.head)
        text += [f"<h2>{html(one.title)}</h2>", f"<table><thead><tr>{head}</tr></thead><tbody>"]
        for row in one.rows:
            cells = (
                f'<td class="{"right" if name in one.right else "left"}">{html(cell)}</td>'
                for name, cell in zip(one.head, row, strict=True)
            )
            text.append(f"<tr>{''.join(cells)}</tr>")
        text += ["</tbody></table>", *(f"<p>{html(said)}</p>" for said in one.below)]
    return "\n".join([*text, "</body></html>", ""])


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title><style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
.right { text-align: right; font-variant-numeric: tabular-nums }
</style></head><body><h1>TITLE</h1>"""
