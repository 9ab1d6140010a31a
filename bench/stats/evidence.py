"""Read the inputs of registered metrics from stored runs, and measure metrics of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.measuring import NO_ANSWER, Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats, Ints
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.stats.difference_tests import Method
from bench.stats.measures import MeasuredMetric, by_group, image_parts, make_metric, measure
from bench.stats.paired import shared_rows
from bench.store.columns import column_values, read_answers, read_columns
from bench.store.decisions import Decisions, class_scores
from bench.store.documents import Manifest
from bench.store.runs import StoredRun, read_run


def metric_input(
    path: Path,
    manifest: Manifest,
    decided: Decisions,
    spec: MetricSpec,
    metric: Metric,
    raters: Mapping[str, Ints] | None = None,
) -> MetricInput:
    """Return the input of a metric: a run's decisions and whatever else the metric declares.

    `raters` are the answers of others, int64 [n] each. Raises a UserError with the reason if the
    run lacks something that the metric needs.
    """
    needs, sample_ids = spec.needs, decided.sample_ids.to_pylist() if metric.columns else []
    try:
        if "top5" in needs and (len(manifest.classes) <= 5 or manifest.items):
            raise UserError("it has five classes or fewer, so all are among the five best.")
        if "candidates" in needs and decided.in_candidates is None:
            raise UserError("it decided among all classes. See --candidates.")
        if "groups" in needs and decided.groups is None:
            raise UserError("its images have no groups.")
        if "rater" in needs and not raters:
            raise UserError(
                "it needs answers to compare with. Give --with RUN, or --with a CSV file."
            )
        stored = read_columns(path, manifest) if metric.columns else {}
        return MetricInput(
            classes=tuple(manifest.classes),
            labels=decided.labels,
            predictions=decided.predictions,
            in_top5=decided.in_top5,
            in_candidates=decided.in_candidates,
            scores=class_scores(path, manifest, decided.sample_ids) if "scores" in needs else None,
            groups=decided.groups,
            columns={name: column_values(stored, name, sample_ids) for name in metric.columns},
            raters=raters or {},
        )
    except UserError as error:
        raise UserError(f"{manifest.run_id} has no {spec.words}: {error}") from None


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


def read_raters(manifest: Manifest, decided: Decisions, others: Sequence[Path]) -> dict[str, Ints]:
    """Return the answers of others to a run's images, int64 [n] each, by name.

    `others` are CSV files, which may have answers of several people, and folders of runs with the
    same data and classes. An image that a run did not decide is NO_ANSWER.
    """
    raters: dict[str, Ints] = {}
    for path in others:
        if path.is_file():
            raters |= read_answers(path, manifest, decided.sample_ids.to_pylist())
            continue
        run = read_run(path)
        other, of_run = run.manifest, run.require_decisions()
        if (manifest.classes, manifest.identity.dataset) != (other.classes, other.identity.dataset):
            raise UserError(f"{other.run_id} has other data or classes than {manifest.run_id}.")
        rows, of_other = shared_rows(decided, of_run)
        answers = np.full(len(decided), NO_ANSWER, dtype=np.int64)
        answers[rows] = of_run.predictions[of_other]
        raters[other.run_id] = answers
    return raters


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
