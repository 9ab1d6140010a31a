"""The comparison of two runs, as facts and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.contracts.metrics import MetricSpec
from bench.discovery.loading import metric_specs
from bench.reports.facts import Fact, difference_fact, metric_fact
from bench.reports.formats import percent_text, points_text, value_text
from bench.reports.text import TextTable
from bench.stats.comparison import Comparison
from bench.stats.difference_tests import MIN_TESTED
from bench.stats.paired import ClassDifference, Difference

TESTS = {
    "permutation": "permutation test",
    "mcnemar": "McNemar, exact",
    "influence": "z test of influence values",
    "approximate": "z test of influence values, approximate: fewer than 10 images in a class",
    "bootstrap": "bootstrap over images",
}


def comparison_facts(comparison: Comparison) -> Iterator[Fact]:
    """Yield what a comparison shows, the most important first."""
    c, accuracy = comparison, metric_specs()["accuracy"]
    for name, share, run in (("A", c.accuracy_a, c.run_a), ("B", c.accuracy_b, c.run_b)):
        yield Fact(name, f"{percent_text(share)} %  {run}")
    yield difference_fact(accuracy, c.difference)
    yield Fact("wins, losses, ties", f"{c.wins:,}, {c.losses:,}, {c.ties:,}")
    yield Fact(TESTS["mcnemar"], _verdict(accuracy, c.difference))
    if c.sequential is not None:
        yield Fact("in random order", c.sequential.sentence)
    if (tested := c.tested) is not None:
        metric = metric_specs()[tested.metric]
        a, b = (metric_fact(metric, value) for value in (tested.a, tested.b))
        yield Fact(a.label, f"A {a.text}, B {b.text}")
        name = f"{metric.words}, B − A"
        yield difference_fact(metric, tested.difference, name)
        test = TESTS.get(tested.difference.method, tested.difference.method)
        yield Fact(test, _verdict(metric, tested.difference))
    yield Fact("images of both", c.difference.n, "count")
    yield Fact("same prediction", c.agreement, "share", c.agreement_ci95)
    for name, ratio in (("cost", c.cost_ratio), ("seconds", c.seconds_ratio)):
        if ratio is not None:
            yield Fact(f"{name}, B / A", ratio, "ratio")
        elif name in c.not_divided:
            yield Fact(f"{name}, B / A", c.not_divided[name])


def _verdict(metric: MetricSpec, difference: Difference) -> str:
    if difference.p is None:
        return f"no p: fewer than {MIN_TESTED} images in a class"
    verdict = metric.verdict(difference.estimate) if difference.significant else "not significant"
    return f"p = {difference.p:.3g}: {verdict}"


def comparison_tables(comparison: Comparison, most: int | None = None) -> list[TextTable]:
    """Return the settings that differ and the accuracies by class, without empty tables.

    Of the classes, those are shown with images that exactly one run gets right; at most `most`.
    """
    pairs = comparison.differences.items()
    settings = [[name, *(value_text(v, "unset") for v in pair)] for name, pair in pairs]
    classes = [row for row in comparison.per_class if row.wins or row.losses]
    classes.sort(key=lambda row: (-abs(row.difference.estimate), row.difference.estimate))
    tables = [
        TextTable("Settings that differ", ["setting", "A", "B"], settings),
        _classes(classes[:most], len(classes)),
    ]
    return [table for table in tables if table.rows]


def _classes(rows: Sequence[ClassDifference], total: int) -> TextTable:
    head = ["class", "n", "A, %", "B, %", "points", "wins, losses", "p, adjusted"]
    lines = [
        [
            *(row.name, f"{row.difference.n:,}"),
            *(percent_text(row.accuracy_a), percent_text(row.accuracy_b)),
            *(points_text(row.difference.estimate), f"{row.wins}, {row.losses}"),
            f"{row.p_adjusted:.2g}",
        ]
        for row in rows
    ]
    more = f" ({len(rows)} of {total})" if len(rows) < total else ""
    optional = ("p, adjusted", "n", "wins, losses")
    title = f"Classes with images that exactly one run gets right{more}"
    return TextTable(title, head, lines, frozenset({*head[1:5], head[6]}), optional)
