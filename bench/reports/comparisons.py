"""The comparison of two stored runs, and its facts and tables."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from bench.contracts.metric_spec import MetricSpec
from bench.discovery.queries import metric_of_runs, metric_specs
from bench.errors import UserError
from bench.inputs.subsets import shuffle_samples
from bench.reports.facts import Column, Fact, difference_fact, metric_fact, percent_text, value_text
from bench.reports.run_view import RunView, read_view
from bench.reports.text import Table, make_table
from bench.stats.inference.class_metrics import interval_caveat
from bench.stats.inference.difference_tests import MIN_TESTED
from bench.stats.inference.paired import ClassDifference, Difference
from bench.stats.metrics.comparison import Comparison, compare_decided
from bench.stats.metrics.metric_checks import MetricParts, metric_parts
from bench.stats.metrics.metric_values import MetricDifference, make_metric, measured_difference
from bench.stats.sequential.stopping_rules import Results, StoppingRule, answer
from bench.store.columns import metric_input, needs_top
from bench.store.formats.arrow import indices
from bench.store.formats.decisions import Decisions, shared_rows
from bench.store.formats.documents import Manifest
from bench.store.questions import QuestionAnswer
from bench.store.shipped import is_published

TESTS = {
    "permutation": "permutation test",
    "mcnemar": "McNemar, exact",
    "influence": "z test of influence values",
    "approximate": "z test of influence values, approximate: fewer than 10 images, or of a class",
    "bootstrap": "bootstrap over images",
}


def compare(
    path_a: Path,
    path_b: Path,
    metric: str = "accuracy",
    sequential: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare run B with run A, the baseline, on the samples that both decided.

    `metric` is tested besides accuracy, with `parameters` other than the defaults. `sequential`
    also tests whether the runs differ image by image in random order, as `--until` does; the metric
    must be a mean over images in [0, 1]. Raises as `compare_decided`, and a UserError if a run
    lacks data that the metric needs.
    """
    a, b = read_view(path_a), read_view(path_b)
    spec = metric_of_runs(metric)
    implementation, top = make_metric(spec, parameters), needs_top(spec)
    decided = a.decisions(top), b.decisions(top)
    compared, rows = compare_views(a, b, decided), shared_rows(*decided)
    inputs = [
        metric_input(run.path, run.manifest, decisions, spec, implementation).take(shared)
        for run, decisions, shared in zip((a, b), decided, rows, strict=True)
    ]
    update: dict[str, MetricDifference | QuestionAnswer | bool | list[str]] = {}
    if interval_caveat(spec, inputs[0].labels) is not None:
        approximate = f"The interval of the difference in {spec.words} is approximate"
        update["warnings"] = [*compared.warnings, f"{approximate}: few images in a class."]
    if metric != "accuracy":
        tested = measured_difference(spec, implementation, *inputs)
        significant, gain = tested.difference.significant, spec.sign * tested.difference.estimate
        update |= {"tested": tested, "significant": significant}
        update["regression"] = significant and gain < 0
    if sequential:
        ids = decided[0].sample_ids.take(indices(rows[0])).to_pylist()
        parts = [metric_parts(spec, implementation, data) for data in inputs]
        update["sequential"] = _answer_in_random_order(spec, a.manifest, ids, parts)
    return compared.model_copy(update=update)


def _answer_in_random_order(
    spec: MetricSpec, baseline: Manifest, ids: Sequence[str], parts: Sequence[MetricParts]
) -> QuestionAnswer:
    """Return whether run B differs from the baseline, A, tested image by image in random order.

    `parts` are the metric of A and of B on the images `ids`, with a value for each of these.
    UserError if the metric is no mean over images.
    """
    of_a, of_b = parts
    by_image = of_a.basis == of_b.basis == "images" and spec.range == (0.0, 1.0)
    if not by_image or of_a.values is None or of_b.values is None:
        raise UserError(
            f"--sequential needs a metric that is a mean over images, and {spec.words} is not one."
        )
    row_of = {sample_id: row for row, sample_id in enumerate(ids)}
    shuffled = shuffle_samples(ids, baseline.identity.dataset.fingerprint)
    order = [row_of[sample_id] for sample_id in shuffled]
    name = baseline.run_id
    question = StoppingRule("differs", f"differs from {name}", name)
    results = Results(of_b.values[order], of_a.values[order], baseline.dataset.n_total)
    return answer(question, results)


def compare_views(a: RunView, b: RunView, decided: tuple[Decisions, Decisions]) -> Comparison:
    """Return `compare_decided` of two runs, with a warning for each that a stopping rule ended."""
    compared = compare_decided((a.manifest, b.manifest), decided)
    ended = [run.stop.warning(run.manifest.run_id) for run in (a, b) if run.stop]
    update = {
        "warnings": [*compared.warnings, *ended],
        "published_a": is_published(a.path),
        "published_b": is_published(b.path),
        "break_even": _break_even(b, a) or _break_even(a, b),
    }
    return compared.model_copy(update=update)


def _break_even(run: RunView, other: RunView) -> dict[str, int | None] | None:
    """Return from how many images on a run costs less than another; see `Comparison.break_even`.

    None if its images to learn from were not generated, or those of both were. The operations of a
    classifier of features are not known, and not counted.
    """
    generation, cost, other_cost = run.summary.generation, run.summary.cost, other.summary.cost
    if generation is None or other.summary.generation is not None:
        return None
    speed, other_speed = cost.images_per_second, other_cost.images_per_second
    numbers: dict[str, int | None] = {}
    if generation.flop is not None and other_cost.flop_per_image is not None:
        saved = other_cost.flop_per_image - (cost.flop_per_image or 0.0)
        numbers["flop"] = _number_of_images(generation.flop, saved)
    if speed and other_speed:
        numbers["seconds"] = _number_of_images(generation.seconds, 1 / other_speed - 1 / speed)
    return numbers


def _number_of_images(paid: float, saved: float) -> int | None:
    """Return on how many images what was paid once is saved; None if nothing is saved."""
    return ceil(paid / saved) if saved > 0 else None


def comparison_facts(comparison: Comparison) -> Iterator[Fact]:
    """Yield what a comparison shows, the most important first."""
    c, accuracy = comparison, metric_specs()["accuracy"]
    for name, share, run in (("A", c.accuracy_a, c.run_a), ("B", c.accuracy_b, c.run_b)):
        yield Fact(name, f"{percent_text(share)} %  {run}")
    yield difference_fact(accuracy, c.difference)
    yield Fact("wins, losses, ties", f"{c.wins:,}, {c.losses:,}, {c.ties:,}")
    yield Fact(TESTS[c.difference.method], _verdict(accuracy, c.difference))
    if c.sequential is not None:
        yield Fact("in random order", f"{c.sequential.sentence} {c.sequential.promise}")
    if (tested := c.tested) is not None:
        metric = metric_specs()[tested.metric]
        a, b = (metric_fact(metric, value) for value in (tested.a, tested.b))
        yield Fact(a.label, f"A {a.text}, B {b.text}")
        yield difference_fact(metric, tested.difference, f"{metric.words}, B − A")
        test = TESTS.get(tested.difference.method, tested.difference.method)
        yield Fact(test, _verdict(metric, tested.difference))
    yield Fact("images of both", c.difference.n, "count")
    yield Fact("same prediction", c.agreement, "share", c.agreement_ci95)
    for name, ratio in (("cost", c.cost_ratio), ("seconds", c.seconds_ratio)):
        if ratio is not None:
            yield Fact(f"{name}, B / A", ratio, "cost")
        elif name in c.not_divided:
            yield Fact(f"{name}, B / A", c.not_divided[name])
    for unit, images in (c.break_even or {}).items():
        from_on = "never" if images is None else f"from {images:,} images on"
        yield Fact("generation pays", f"by {'operations' if unit == 'flop' else unit}, {from_on}")


def _verdict(metric: MetricSpec, difference: Difference) -> str:
    if difference.p is None:
        return f"no p: fewer than {MIN_TESTED} images, or of a class, or all have the same value"
    verdict = metric.verdict(difference.estimate) if difference.significant else "not significant"
    return f"p = {Fact('', difference.p, 'p').text}: {verdict}"


def comparison_tables(comparison: Comparison, most: int | None = None) -> list[Table]:
    """Return the tables, unless empty, of settings that differ and of accuracies by class.

    The classes are those with images that exactly one run gets right, at most `most` of them.
    """
    pairs = comparison.differences.items()
    settings = [[name, *(value_text(v, "unset") for v in pair)] for name, pair in pairs]
    classes = [row for row in comparison.per_class if row.wins or row.losses]
    classes.sort(key=lambda row: (-abs(row.difference.estimate), row.difference.estimate))
    tables = [
        Table("Settings that differ", ["setting", "A", "B"], settings),
        _class_table(classes[:most], len(classes)),
    ]
    return [table for table in tables if table.rows]


def _class_table(rows: Sequence[ClassDifference], total: int) -> Table:
    columns: list[Column[ClassDifference]] = [
        Column("class", lambda row: row.name),
        Column("n", lambda row: row.difference.n, "count"),
        Column("A", lambda row: row.accuracy_a, "share"),
        Column("B", lambda row: row.accuracy_b, "share"),
        Column("points", lambda row: Fact("", row.difference.estimate, "points"), "number"),
        Column("wins, losses", lambda row: f"{row.wins}, {row.losses}"),
        Column("p, adjusted", lambda row: row.p_adjusted, "p"),
    ]
    more = f" ({len(rows)} of {total})" if len(rows) < total else ""
    title = f"Classes with images that exactly one run gets right{more}"
    return make_table(title, columns, rows, optional=("p, adjusted", "n", "wins, losses"))
