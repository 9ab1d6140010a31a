"""Measure registered metrics of stored runs, and compare two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.subsets import shuffle_samples
from bench.stats.checked import metric_parts
from bench.stats.comparison import Comparison, compare_decided
from bench.stats.measures import (
    MeasuredMetric,
    make_metric,
    measure,
    measured_difference,
)
from bench.stats.questions import Results, StopQuestion, answer
from bench.store.arrow import indices
from bench.store.columns import column_values, metric_input, read_columns, read_raters
from bench.store.decisions import shared_rows
from bench.store.runs import read_run


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
    names = data.groups if by == "group" else None
    if names is None:
        names = column_values(read_columns(path, manifest), by, decided.sample_ids.to_pylist())
    rows: list[tuple[str, MeasuredMetric | str]] = []
    for group in sorted(set(names.tolist()) - {""}):  # an image without a name is in no group
        try:
            part = data.take(np.flatnonzero(names == group))
            rows.append((group, measure(spec, metric, part, {})))
        except UserError as error:
            rows.append((group, str(error)))
    return rows


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
    update: dict[str, object] = {}
    if metric != "accuracy":
        tested = measured_difference(spec, implementation, *inputs)
        shown, change = tested.difference.significant, spec.sign * tested.difference.estimate
        update = {"tested": tested, "significant": shown, "regression": shown and change < 0}
    if sequential:
        ids = decided[0].sample_ids.take(indices(rows[0])).to_pylist()
        place = {sample_id: row for row, sample_id in enumerate(ids)}
        order = shuffle_samples(ids, a.manifest.identity.dataset.fingerprint)
        mixed = np.array([place[sample_id] for sample_id in order])
        base, new = (metric_parts(spec, implementation, data.take(mixed)) for data in inputs)
        if not (base.method == new.method == "images" and spec.range == (0.0, 1.0)):
            raise UserError(
                f"--sequential needs a metric that is a mean over images, and {spec.words} is not"
                " one."
            )
        assert base.values is not None and new.values is not None
        name = a.manifest.run_id
        question = StopQuestion("differs", f"differs from {name}", name)
        results = Results(new.values, base.values, a.manifest.dataset.n_total)
        update["sequential"] = answer(question, results)
    return compared.model_copy(update=update)
