"""Measure registered metrics of stored runs, and compare two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.measuring import Metric
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.subsets import shuffle_samples
from bench.stats.comparison import Comparison, answer_in_order, compare_decided, with_metric
from bench.stats.difference_tests import Method
from bench.stats.measures import (
    MeasuredMetric,
    by_group,
    image_parts,
    make_metric,
    measure,
    measured_difference,
)
from bench.store.arrow import indices
from bench.store.columns import column_values, read_columns
from bench.store.decisions import Decisions, shared_rows
from bench.store.metric_inputs import metric_input, read_raters
from bench.store.runs import StoredRun, read_run


def measure_run(
    path: Path,
    name: str,
    parameters: Mapping[str, Any],
    others: Sequence[Path] = (),
    by: str | None = None,
) -> list[tuple[str, MeasuredMetric | str]]:
    """Measure a registered metric of a stored run, as a whole or by groups of images.

    Each metric has the name of its group, "" if `by` is None. If it is undefined for a group, the
    reason replaces it. `parameters` are those that differ from their defaults; `others` are as for
    `read_raters`; `by` is a column of labels, or `group` for the groups of the data. Raises
    UserError if there is no such metric, parameter or column, or if the run lacks something that it
    needs.
    """
    spec = load_plugins().metrics.get(name)
    metric, run = make_metric(spec, parameters), read_run(path)
    manifest, decided = run.manifest, run.require_decisions()
    raters = read_raters(manifest, decided, others)
    data = metric_input(path, manifest, decided, spec, metric, raters)
    if by is None:
        return [("", measure(spec, metric, data, parameters))]
    if by == "group" and data.groups is not None:
        return list(by_group(spec, metric, data, data.groups))
    labels = column_values(read_columns(path, manifest), by, decided.sample_ids.to_pylist())
    return list(by_group(spec, metric, data, labels))


def compare(
    path_a: Path,
    path_b: Path,
    metric: str = "accuracy",
    sequential: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare run B with run A, the baseline, on the samples that both decided.

    `metric` is tested besides accuracy, with `parameters` other than the defaults. `sequential`
    also asks whether the runs differ, image by image in random order, as `--until` does; the metric
    must be a mean over images in [0, 1]. Raises as `compare_decided`, and a UserError if a run
    lacks something that the metric needs.
    """
    a, b = read_run(path_a), read_run(path_b)
    spec = load_plugins().metrics.get(metric)
    implementation, top = make_metric(spec, parameters), "top5" in spec.needs
    decided = a.decided(top), b.decided(top)
    compared, rows = compare_decided((a.manifest, b.manifest), decided), shared_rows(*decided)
    inputs = [
        metric_input(run.path, run.manifest, decisions, spec, implementation).take(shared)
        for run, decisions, shared in zip((a, b), decided, rows, strict=True)
    ]
    if metric != "accuracy":
        tested = measured_difference(spec, implementation, *inputs)
        compared = with_metric(compared, tested, spec)
    if not sequential:
        return compared
    ids = decided[0].sample_ids.take(indices(rows[0])).to_pylist()
    place = {sample_id: row for row, sample_id in enumerate(ids)}
    order = [place[name] for name in shuffle_samples(ids, a.manifest.identity.dataset.fingerprint)]
    ordered_a, ordered_b = (data.take(np.array(order)) for data in inputs)
    name, total = a.manifest.run_id, a.manifest.dataset.n_total
    answered = answer_in_order(spec, implementation, ordered_a, ordered_b, name, total)
    return compared.model_copy(update={"sequential": answered})


def read_values(
    run: StoredRun, spec: MetricSpec, metric: Metric
) -> tuple[Decisions, Floats, Method]:
    """Return a run's decisions, and values of its images, float64 [n], whose mean is the metric.

    The method says whether these are the images' own values or influence values. Raises UserError
    if the run lacks something that the metric needs, or if the metric is not such a mean.
    """
    decided = run.decided(top="top5" in spec.needs)
    data = metric_input(run.path, run.manifest, decided, spec, metric)
    values, method = image_parts(spec, metric, data)
    if values is None:
        raise UserError(
            f"A study needs a metric that is a mean over images, and {spec.words} is not one."
            f" To test two runs by a bootstrap, use bench compare A B --metric {spec.name}."
        )
    return decided, values, method
