"""The leaderboard for a README, a spreadsheet and a web page, and a run for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.boards import text
from bench.boards.columns import metric_columns, row_settings, tabulate
from bench.boards.formats import assignments, boards, cost_text, notes
from bench.boards.leaderboard import RANKED
from bench.boards.rows import LeaderboardRow, run_row
from bench.boards.text import TextTable, csv_text
from bench.store.runs import read_run


def to_markdown(rows: Sequence[LeaderboardRow]) -> str:
    """Return one Markdown table per board."""
    return text.to_markdown(_tables(rows))


def to_html(rows: Sequence[LeaderboardRow]) -> str:
    """Return a page with one table per board."""
    return text.to_html(_tables(rows), "Leaderboard")


def _tables(rows: Sequence[LeaderboardRow]) -> list[TextTable]:
    tables = [tabulate(board, title) for title, board in boards(rows)]
    if tables:
        tables[-1].below.append(RANKED)
    return tables


def to_csv(rows: Sequence[LeaderboardRow]) -> str:
    """Return one table of all boards, one column per field of the rows, numbers unrounded."""
    if not rows:
        return ""
    names = [name for name in LeaderboardRow.model_fields if name != "accuracy_ci95"]
    lines = []
    for row in rows:
        plain = row.plain()
        low, high = plain["accuracy_ci95"] or (None, None)
        line = {name: plain[name] for name in names}
        line |= {name: assignments(line[name]) for name in ("params", "parameters")}
        lines.append({**line, "accuracy_low": low, "accuracy_high": high})
    return csv_text(lines[0], (line.values() for line in lines))


def to_latex(run: Path) -> str:
    """Return a run's figures as a table for LaTeX's `booktabs`; UserError: it is not complete."""
    stored = read_run(run)
    row = run_row(run, stored.manifest, stored.finished())
    low, high = row.accuracy_ci95 or (row.accuracy, row.accuracy)
    images = f"{row.n_samples or 0:,}"
    if row.n_samples != row.n_total:
        images += f" of {row.n_total or 0:,}"
    cells = {
        "backbone": row.backbone,
        "strategy": f"{row.strategy} {assignments(row.params)}".strip(),
        "accuracy, % (95 % interval)": (
            f"{100 * row.accuracy:.1f} ({100 * low:.1f}–{100 * high:.1f})"
        ),
    }
    for metric in metric_columns([row]):
        cells[f"{metric.words}, %"] = f"{100 * (row.figure(metric.name) or 0):.1f}"
    cells |= {"evaluations per image": cost_text(row, 1), "images": images}
    head = list(cells)
    facts = "; ".join([*notes(row, []), assignments(row_settings(row)), f"run {row.run_id}"])
    table = TextTable(
        f"{row.dataset}/{row.split}",
        head,
        [list(cells.values())],
        frozenset(head[2:]),
        below=[facts],
    )
    return text.to_latex([table])
