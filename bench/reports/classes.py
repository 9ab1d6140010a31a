"""The table of a run's classes."""

from __future__ import annotations

from collections.abc import Sequence

from bench.reports.facts import Column, Fact
from bench.reports.text import Table, make_table
from bench.stats.metrics import ClassFigures


def class_table(classes: Sequence[ClassFigures], bars: bool = False) -> Table:
    """Return precision, recall and F1 by class; `bars` adds a column of bars for pages."""
    columns: list[Column[ClassFigures]] = [
        Column("class", lambda c: c.name),
        Column("n", lambda c: c.n, "count"),
        Column("predicted", lambda c: c.predicted, "count"),
        Column("precision", lambda c: c.precision if c.predicted else None, "share"),
        Column("recall", lambda c: Fact("recall", c.recall, "share", c.recall_ci95), "share"),
        Column("F1", lambda c: c.f1, "share"),
    ]
    if bars:
        columns.insert(5, Column("", lambda c: Fact("", c.recall, "bar", c.recall_ci95), "bar"))
    return make_table("Classes", columns, classes, optional=("predicted", "F1, %"))
