"""What a registered metric reads of a stored run, or why the run does not have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from bench.store.runs import StoredRun, read_run


@dataclass(frozen=True)
class RunEvidence:
    """A run whose decisions were read, with what metrics need beside them."""

    run: StoredRun
    decided: Decisions

    @property
    def sample_ids(self) -> list[str]:
        """Ids of the decided images."""
        ids: list[str] = self.decided.sample_ids.to_pylist()
        return ids

    def data(self, spec: MetricSpec, metric: Metric, raters: Mapping[str, Ints]) -> MetricInput:
        """Return what a metric reads; UserError, with the reason: the run does not have it."""
        manifest, decided, needs = self.run.manifest, self.decided, spec.needs
        try:
            if "top5" in needs and (len(manifest.classes) <= 5 or manifest.items):
                raise UserError("five classes or fewer are all among the five best.")
            if "candidates" in needs and decided.in_candidates is None:
                raise UserError("it decided among all classes; see --candidates.")
            if "groups" in needs and decided.groups is None:
                raise UserError("its images have no groups.")
            if "rater" in needs and not raters:
                raise UserError("name what it is compared with: --with RUN, or a CSV of answers.")
            stored = read_columns(self.run.path, manifest) if metric.columns else {}
            return MetricInput(
                classes=tuple(manifest.classes),
                labels=decided.labels,
                predictions=decided.predictions,
                in_top5=decided.in_top5,
                in_candidates=decided.in_candidates,
                scores=class_scores(self.run.path, manifest, decided.sample_ids)
                if "scores" in needs
                else None,
                groups=None
                if decided.groups is None
                else np.array([name or "" for name in decided.groups.to_pylist()]),
                columns={
                    name: column_values(stored, name, self.sample_ids) for name in metric.columns
                },
                raters=raters,
            )
        except UserError as error:
            raise UserError(f"{manifest.run_id} has no {spec.words}: {error}") from None


def read_evidence(path: Path) -> RunEvidence:
    """Read a run with its decisions; UserError: there is none, or nothing is decided."""
    run = read_run(path)
    return RunEvidence(run, run.some_decided())


def read_values(
    run: StoredRun, spec: MetricSpec, metric: Metric
) -> tuple[Decisions, Floats, Method]:
    """Return a run's decisions, with values of the images whose mean is a metric, float64 [n].

    UserError, with the reason: the run lacks what the metric needs, or it has no such values.
    """
    decided = run.decided(top="top5" in spec.needs)
    values, method = image_parts(spec, metric, RunEvidence(run, decided).data(spec, metric, {}))
    if values is None:
        raise UserError(
            f"A study tests means of images' values, and {spec.words} has none:"
            f" bench compare A B --metric {spec.name} tests two runs by a bootstrap."
        )
    return decided, values, method


def read_raters(evidence: RunEvidence, others: Sequence[Path]) -> dict[str, Ints]:
    """Return the answers of others, CSV files of people or folders of runs, by name.

    UserError: one is neither, or of other data or classes.
    """
    raters: dict[str, Ints] = {}
    for path in others:
        if path.is_file():
            raters |= read_answers(path, evidence.run.manifest, evidence.sample_ids)
            continue
        other = read_evidence(path)
        own, manifest = evidence.run.manifest, other.run.manifest
        if own.classes != manifest.classes or own.identity.dataset != manifest.identity.dataset:
            raise UserError(f"{manifest.run_id} is of other data or classes than {own.run_id}.")
        rows, of_other = shared_rows(evidence.decided, other.decided)
        answers = np.full(len(evidence.decided), NO_ANSWER, dtype=np.int64)
        answers[rows] = other.decided.predictions[of_other]
        raters[manifest.run_id] = answers
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
    metric, evidence = make_metric(spec, parameters), read_evidence(path)
    data = evidence.data(spec, metric, read_raters(evidence, others))
    if by is None:
        return [("", measure(spec, metric, data, parameters))]
    if by == "group" and data.groups is not None:
        return list(by_group(spec, metric, data, data.groups))
    columns = read_columns(path, evidence.run.manifest)
    return list(by_group(spec, metric, data, column_values(columns, by, evidence.sample_ids)))
