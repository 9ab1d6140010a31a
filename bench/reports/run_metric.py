"""A registered metric of a run's images, as a whole or by groups of images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.discovery.loading import load_plugins
from bench.errors import UserError, warn_user
from bench.reports.run_view import RunView, read_decided_run
from bench.stats.metrics.metric_values import MeasuredMetric, make_metric, measure
from bench.stats.metrics.summarise import summarize
from bench.store.columns import (
    column_values,
    labelled_samples,
    metric_input,
    read_columns,
    read_raters,
)
from bench.store.runs import OnUnreadable, StoredRun


def measure_run(
    run: RunView,
    name: str,
    parameters: Mapping[str, Any],
    others: Sequence[Path] = (),
    by: str | None = None,
) -> list[tuple[str, MeasuredMetric | str]]:
    """Return (group, metric) of all images, whose group is "", or of each group of images `by`.

    If the metric is undefined for a group, the reason replaces it. `parameters` are those that
    differ from their defaults. `others` are the raters of `read_raters`. `by` is a column of
    labels, or `group` for the groups of the data. Raises UserError if there is no such metric,
    parameter or column, or if the run lacks data that the metric needs.
    """
    spec, decided = load_plugins().metrics.get(name), run.stored.require_decisions()
    metric = make_metric(spec, parameters)
    if run.stop is not None:
        warn_user(run.stop.warning(run.manifest.run_id))
    raters = read_raters(run.manifest, decided, others)
    data = metric_input(run.path, run.manifest, decided, spec, metric, raters)
    if by is None:
        return [("", measure(spec, metric, data, parameters))]
    names = data.groups if by == "group" else None
    if names is None:
        columns = read_columns(run.path, run.manifest)
        names = column_values(columns, by, decided.sample_ids.to_pylist())
    rows: list[tuple[str, MeasuredMetric | str]] = []
    for group in sorted(set(names.tolist()) - {""}):  # an image without a name is in no group
        try:
            part = data.take(np.flatnonzero(names == group))
            rows.append((group, measure(spec, metric, part, parameters)))
        except UserError as error:
            rows.append((group, str(error)))
    return rows


def measured_view(run: RunView, name: str, parameters: Mapping[str, Any]) -> RunView:
    """Return a run with a metric of all its images; UserError as for `measure_run`."""
    [(_, measured)] = measure_run(run, name, parameters)
    return replace(run, measured=None if isinstance(measured, str) else measured)


def read_requested_run(
    run: StoredRun,
    metric: tuple[str, Mapping[str, Any]] | None,
    label: tuple[str, str] | None,
    left_out: OnUnreadable,
) -> RunView:
    """Return a run, limited to the images with `label` and with `metric`, if these are not None.

    If the run lacks data that the metric needs, `left_out` is called with the reason. UserError if
    none of the images is decided.
    """
    if label is None:
        view = read_decided_run(run)
    else:
        samples = labelled_samples(run.path, run.manifest, *label)
        manifest = run.manifest.model_copy(update={"samples": samples})
        decided = StoredRun(run.path, manifest, None).require_decisions()
        summary = summarize(manifest, decided, None, None)
        view = RunView(StoredRun(run.path, manifest, summary), label=label)
    try:
        return view if metric is None else measured_view(view, *metric)
    except UserError as error:
        left_out(run.path, error)
        return view
