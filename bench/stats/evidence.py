"""What a registered metric reads of a stored run, or why the run does not have it."""

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
    """Return what a metric reads of the run in a folder, beside the decisions of the run.

    UserError, with the reason: the run does not have it.
    """
    needs, sample_ids = spec.needs, decided.sample_ids.to_pylist() if metric.columns else []
    try:
        if "top5" in needs and (len(manifest.classes) <= 5 or manifest.items):
            raise UserError("five classes or fewer are all among the five best.")
        if "candidates" in needs and decided.in_candidates is None:
            raise UserError("it decided among all classes; see --candidates.")
        if "groups" in needs and decided.groups is None:
            raise UserError("its images have no groups.")
        if "rater" in needs and not raters:
            raise UserError("name what it is compared with: --with RUN, or a CSV of answers.")
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
    """Return a run's decisions, with values of the images whose mean is a metric, float64 [n].

    UserError, with the reason: the run lacks what the metric needs, or it has no such values.
    """
    decided = run.decided(top="top5" in spec.needs)
    data = metric_input(run.path, run.manifest, decided, spec, metric)
    values, method = image_parts(spec, metric, data)
    if values is None:
        raise UserError(
            f"A study tests means of images' values, and {spec.words} has none:"
            f" bench compare A B --metric {spec.name} tests two runs by a bootstrap."
        )
    return decided, values, method


def read_raters(manifest: Manifest, decided: Decisions, others: Sequence[Path]) -> dict[str, Ints]:
    """Return others' answers to a run's images, by name: CSV files of people, folders of runs.

    UserError: one is neither, or of other data or classes.
    """
    raters: dict[str, Ints] = {}
    for path in others:
        if path.is_file():
            raters |= read_answers(path, manifest, decided.sample_ids.to_pylist())
            continue
        run = read_run(path)
        other, of_run = run.manifest, run.some_decided()
        if (manifest.classes, manifest.identity.dataset) != (other.classes, other.identity.dataset):
            raise UserError(f"{other.run_id} is of other data or classes than {manifest.run_id}.")
        rows, of_other = shared_rows(decided, of_run)
        answers = np.full(len(decided), NO_ANSWER, dtype=np.int64)
        answers[rows] = of_run.predictions[of_other]
        raters[other.run_id] = answers
    return raters


def measured(
    path: Path,
    name: str,
    parameters: Mapping[str, Any],
    others: Sequence[Path] = (),
    by: str | None = None,
) -> list[tuple[str, MeasuredMetric | str]]:
    """Return a metric of a run, under "", or of each value of a column of further labels.

    A value of `by` whose images do not define the metric has the reason. `by` may be `group`, the
    group of each image. UserError: there is no such metric, parameter or column, or the run lacks
    what the metric needs.
    """
    spec = load_plugins().metrics.get(name)
    metric, run = make_metric(spec, parameters), read_run(path)
    manifest, decided = run.manifest, run.some_decided()
    raters = read_raters(manifest, decided, others)
    data = metric_input(path, manifest, decided, spec, metric, raters)
    if by is None:
        return [("", measure(spec, metric, data, parameters))]
    if by == "group" and data.groups is not None:
        return list(by_group(spec, metric, data, data.groups))
    labels = column_values(read_columns(path, manifest), by, decided.sample_ids.to_pylist())
    return list(by_group(spec, metric, data, labels))
