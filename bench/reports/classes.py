"""The tables of a run's classes: precision and recall by class, and the confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.contracts.strategy import Floats, Ints
from bench.reports.facts import Column, Fact, Unit
from bench.reports.text import Table, make_table
from bench.stats.metrics.summarise import ClassFigures, Confusions, confusions_of
from bench.store.formats.decisions import Decisions

MOST_CONFUSED = 40  # number of classes in the matrix if it has no room for all


def class_table(classes: Sequence[ClassFigures], bars: bool = False) -> Table:
    """Return precision, recall and F1 by class; `bars` adds a column of bars for pages."""
    columns: list[Column[ClassFigures]] = [
        Column("class", lambda c: c.name),
        Column("n", lambda c: c.n, "count"),
        Column("predicted", lambda c: c.predicted, "count"),
        Column("precision", lambda c: c.precision if c.predicted else None, "share"),
        Column("recall", lambda c: Fact("recall", c.recall, "share", c.recall_ci95), "share"),
        Column("F1", lambda c: c.f1 if c.n else None, "share"),
    ]
    if bars:
        columns.insert(5, Column("", lambda c: Fact("", c.recall, "bar", c.recall_ci95), "bar"))
    never = sum(c.n > 0 and not c.predicted for c in classes)
    note = f"Classes that are never predicted, {never} of these, have a precision of 0 in averages."
    below = [note] if never else []
    return make_table("Classes", columns, classes, optional=("predicted", "F1, %"), below=below)


@dataclass(frozen=True)
class ConfusionMatrix:
    """The confusion matrix of some classes; rows are true classes, columns predicted ones."""

    names: list[str]
    counts: Ints  # number of images, int64 [C, C]
    shares: Floats  # the same as shares of all images of the true class, float64 [C, C]

    @property
    def table(self) -> Table:
        """The matrix as a table; cells without images are empty."""

        def cell(row: int, column: int) -> Fact:
            unit: Unit = "hit" if row == column else "miss"
            share = float(self.shares[row, column])
            return Fact("", int(self.counts[row, column]), unit, share=share)

        rows = [
            [name, *(cell(row, column) if n else "" for column, n in enumerate(counts))]
            for row, (name, counts) in enumerate(zip(self.names, self.counts.tolist(), strict=True))
        ]
        return Table("Confusion matrix", ["", *self.names], rows, frozenset(self.names))


def confusion_matrix(
    decided: Decisions, classes: Sequence[str], most: int = MOST_CONFUSED
) -> ConfusionMatrix:
    """Return the matrix of all classes; of more than `most`, that of the most confused ones."""
    confusions, n = confusions_of(decided), len(classes)
    shown = np.arange(n) if n <= most else most_confused_classes(confusions, n)
    counts = confusions.square(shown)
    totals = confusions.totals(n)[shown, None].clip(min=1)
    return ConfusionMatrix([classes[index] for index in shown], counts, counts / totals)


def most_confused_classes(
    confusions: Confusions, n_classes: int, most: int = MOST_CONFUSED
) -> Ints:
    """Return the labels of the most confused classes, sorted, int64 [≤ most].

    The classes of the most frequent confusions are taken until there are `most`. If there are too
    few confusions, the first classes of the dataset are added.
    """
    worst = confusions.worst(most)  # each adds one or two classes, so `most` of them suffice
    classes = np.stack([worst.true, worst.predicted], axis=1).ravel()
    chosen = dict.fromkeys([*classes.tolist(), *range(n_classes)])
    return np.sort(np.fromiter(chosen, np.int64)[:most])
