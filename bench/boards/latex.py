"""A run's figures as a table for a paper."""

from __future__ import annotations

from pathlib import Path

from bench.boards.columns import row_settings
from bench.boards.formats import assignments, cost_text, notes
from bench.boards.rows import run_row
from bench.boards.text_tables import TextTable
from bench.boards.text_tables import to_latex as tables_to_latex
from bench.store.runs import read_run


def to_latex(run: Path) -> str:
    """Return a table of a complete run for LaTeX with the package `booktabs`.

    Raises:
        UserError: the run is not complete.
    """
    stored = read_run(run)
    row = run_row(run, stored.manifest, stored.finished())
    low, high = row.accuracy_ci95 or (row.accuracy, row.accuracy)
    interval = f"({100 * low:.1f}–{100 * high:.1f})"
    images = f"{row.n_samples or 0:,}"
    if row.n_samples != row.n_total:
        images += f" of {row.n_total or 0:,}"
    cells = {
        "backbone": row.backbone,
        "strategy": f"{row.strategy} {assignments(row.params)}".strip(),
        "accuracy, % (95 % interval)": f"{100 * row.accuracy:.1f} {interval}",
        "F1, %": "–" if row.f1_weighted is None else f"{100 * row.f1_weighted:.1f}",
        "evaluations per image": cost_text(row, 1),
        "images": images,
    }
    said = "; ".join([*notes(row, []), assignments(row_settings(row)), f"run {row.run_id}"])
    right = frozenset(list(cells)[2:])
    title = f"{row.dataset}/{row.split}"
    return tables_to_latex(
        [TextTable(title, list(cells), [list(cells.values())], right, (), [said])]
    )
