"""The leaderboard for a README, a spreadsheet and a web page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench.boards.columns import RIGHT, tabulate
from bench.boards.formats import assignments, boards
from bench.boards.leaderboard import RANKED
from bench.boards.rows import LeaderboardRow
from bench.boards.text import csv_cell, html, markdown


def to_markdown(rows: Sequence[LeaderboardRow]) -> str:
    """Return a Markdown table per board."""
    text = []
    for title, board in boards(rows):
        shown = tabulate(board)
        text += [f"**{markdown(title)}**", ""]
        text += [markdown(shown.above), ""] if shown.above else []
        text += [_pipes([markdown(name) for name in shown.head])]
        text += [_pipes(["--:" if name in RIGHT else "---" for name in shown.head])]
        text += [_pipes([markdown(cell) for cell in line]) for line in shown.cells]
        sources = enumerate(shown.sources, start=1)
        text += ["", *(f"({n}) {markdown(source)}  " for n, source in sources)]
        text += [""] if shown.sources else []
    return "\n".join([*text, markdown(RANKED), ""] if text else text)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(rows: Sequence[LeaderboardRow]) -> str:
    """Return one table of all boards, one column per field of the rows, numbers unrounded."""
    out = io.StringIO()
    if rows:
        names = [*LeaderboardRow.model_fields, "accuracy_low", "accuracy_high"]
        names.remove("accuracy_ci95")
        writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            low, high = row.accuracy_ci95 or (None, None)
            line = {**row.plain(), "accuracy_low": low, "accuracy_high": high}
            line |= {name: assignments(line[name]) for name in ("params", "parameters")}
            writer.writerow({name: csv_cell(value) for name, value in line.items()})
    return out.getvalue()


def to_html(rows: Sequence[LeaderboardRow]) -> str:
    """Return a page that needs nothing else."""
    text = [_PAGE]
    for title, board in boards(rows):
        shown = tabulate(board)
        head = "".join(f"<th>{html(name)}</th>" for name in shown.head)
        text += [f"<h2>{html(title)}</h2>", f"<p>{html(shown.above)}</p>"]
        text += [f"<table><thead><tr>{head}</tr></thead><tbody>"]
        for line in shown.cells:
            cells = (
                f'<td class="{"right" if name in RIGHT else "left"}">{html(cell)}</td>'
                for name, cell in zip(shown.head, line, strict=True)
            )
            text.append(f"<tr>{''.join(cells)}</tr>")
        text.append("</tbody></table>")
        text += [f"<p>({n}) {html(source)}</p>" for n, source in enumerate(shown.sources, start=1)]
    return "\n".join([*text, f"<p>{html(RANKED)}</p>", "</body></html>", ""])


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Leaderboard</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
.right { text-align: right; font-variant-numeric: tabular-nums }
</style></head><body><h1>Leaderboard</h1>
"""
