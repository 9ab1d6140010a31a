"""Metrics on request, as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from bench.render.tables import table
from bench.stats.measures import MeasuredMetric

INTERVALS = {
    "images": "the images' values",
    "influence": "influence values of the images",
    "bootstrap": "a bootstrap over images",
}


def print_measured(rows: Sequence[tuple[str, MeasuredMetric | str]], by: str | None) -> None:
    """Print a metric with its interval, of the run or of each value of a column."""
    if by is not None:
        lines = [
            [name, row, "", ""]
            if isinstance(row, str)
            else [name, f"{row.value:.4f}", _interval(row), f"{row.images:,}"]
            for name, row in rows
        ]
        measured = next((row for _, row in rows if not isinstance(row, str)), None)
        words = measured.words if measured else "value"
        table([by, words, "95 % interval", "images"], lines, right={"images"})
        return
    for _, row in rows:
        if isinstance(row, str):
            continue
        over = INTERVALS[row.interval] + (" and raters" if row.raters else "")
        facts = [
            [row.words, f"{row.value:.4f}  (95 % interval {_interval(row)})"],
            ["images", f"{row.images:,}"],
            ["interval from", over],
            *([name, f"{value:.4f}"] for name, value in (row.raters or {}).items()),
        ]
        table(["", ""], facts)


def _interval(row: MeasuredMetric) -> str:
    low, high = row.ci95
    return f"{low:.4f} – {high:.4f}"
