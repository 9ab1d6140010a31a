"""Read the inputs of registered metrics from stored runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.contracts.measuring import NO_ANSWER, Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Ints
from bench.errors import UserError
from bench.store.columns import column_values, read_answers, read_columns
from bench.store.decisions import Decisions, class_scores, shared_rows
from bench.store.documents import Manifest
from bench.store.runs import read_run


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
