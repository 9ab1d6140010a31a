"""A run's figures as a table for a paper."""

from __future__ import annotations

import re
from pathlib import Path

from bench.boards.columns import row_settings
from bench.boards.formats import assignments, notes
from bench.boards.rows import run_row
from bench.boards.text import visible
from bench.store.runs import read_run

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex(text: object) -> str:
    """Return a name for LaTeX."""
    return re.sub(r"[\\~^&%$#_{}]", lambda match: _SPECIAL[match[0]], visible(text))


def to_latex(run: Path) -> str:
    """Return a `tabular` of a complete run (it needs the package booktabs), as a fragment.

    Raises:
        UserError: the run is not complete.
    """
    stored = read_run(run)
    row = run_row(run, stored.manifest, stored.finished())
    low, high = row.accuracy_ci95 or (row.accuracy, row.accuracy)
    images = (
        f"{row.n_samples:,}"
        if row.n_samples == row.n_total
        else f"{row.n_samples or 0:,} of {row.n_total or 0:,}"
    )
    cells = [
        latex(f"{row.dataset}/{row.split}"),
        latex(row.backbone),
        latex(f"{row.strategy} {assignments(row.params)}".strip()),
        f"{100 * row.accuracy:.1f} ({100 * low:.1f}--{100 * high:.1f})",
        "--" if row.f1_weighted is None else f"{100 * row.f1_weighted:.1f}",
        "--" if row.cost is None else f"{row.cost:,.1f}",
        images,
    ]
    head = [
        "Dataset",
        "Backbone",
        "Strategy",
        r"Accuracy, \% (95\,\% interval)",
        r"F1, \%",
        "Evaluations per image",
        "Images",
    ]
    said = "; ".join([*notes(row, []), assignments(row_settings(row))])
    return "\n".join(
        [
            f"% {latex(stored.manifest.run_id)}: {latex(said)}",
            r"\begin{tabular}{lllrrrr}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            " & ".join(cells) + r" \\",
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
