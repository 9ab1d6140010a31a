"""Metrics, cost, summary and statistics of a run, from its records or their columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from bench.contracts.measuring import MetricInput
from bench.contracts.strategy import Ints
from bench.discovery.loading import metric_specs
from bench.stats.agreement import Repeatability
from bench.stats.calibration import ReliabilityDiagram, calibration
from bench.stats.class_metrics import class_counts
from bench.stats.measures import summary_value
from bench.stats.probability import Probability
from bench.stats.shares import accuracy_interval, pair_scores, per_group, wilson
from bench.store.decisions import FAILED, Decisions
from bench.store.documents import Items, Manifest
from bench.store.fields import Count, Document, Interval, Share, without_none
from bench.store.summary import Cost, Ends, Group, Metrics, ScoredData, Summary

INCOMPLETE = "incomplete"  # status of a run with undecided images


def metrics(decided: Decisions, classes: Sequence[str], items: Items | None = None) -> Metrics:
    """Return accuracy with its interval, balanced accuracy, precision, recall, F1 and top-5.

    Weighted averages weigh the classes by their true samples; macro averages are plain means over
    the classes that have any. A failed sample counts as wrong. Of items, a class is an answer.
    `decided` are records, or columns read with `top`; `items` describe a run of items.
    """
    correct = int(decided.correct.sum())
    assert decided.in_top5 is not None, "columns without top were read"
    return Metrics(
        **_registered(decided, classes, items),
        accuracy_ci95=accuracy_interval(correct, len(decided)),
        chance=items.chance if items else 1 / len(classes),
        **without_none(worst_group=next(iter(per_group(decided)), None)),
        **(pair_scores(decided, items) if items else {}),
    )


def _registered(
    decided: Decisions, classes: Sequence[str], items: Items | None
) -> dict[str, float | None]:
    """Return the value of each metric of summaries, None where something it needs is missing."""
    data = MetricInput(
        classes=tuple(classes),
        labels=decided.labels,
        predictions=decided.predictions,
        in_top5=decided.in_top5 if len(classes) > 5 and not items else None,
        in_candidates=decided.in_candidates,
    )
    # A run on all classes says nothing of candidates.
    absent = {"top5": data.in_top5 is None, "candidates": data.in_candidates is None}
    values: dict[str, float | None] = {}
    for name, metric in metric_specs().items():
        lacking = [need for need in metric.needs if absent.get(need)]
        if metric.in_summaries and "candidates" not in lacking:
            values[name] = None if lacking else summary_value(metric, data)
    return values


class ClassFigures(Document):
    """How right the decisions about one class were."""

    name: str = Field(alias="class")  # name of the class
    n: Count
    predicted: Count  # number of images predicted as it
    precision: Share  # share of these that are of the class; 0 where there are none
    recall: Share | None  # share of its images predicted as it; None: it has no images
    recall_ci95: Interval | None
    f1: Share  # harmonic mean of precision and recall


def per_class(decided: Decisions, classes: Sequence[str]) -> list[ClassFigures]:
    """Return the figures of each class, in label order."""
    counts = class_counts(decided.labels, decided.predictions, len(classes))
    ends = np.stack(wilson(counts[0], np.maximum(counts[1], 1)), axis=1).tolist()
    columns = (column.tolist() for column in counts)
    rows = []
    for name, interval, hits, n, predicted in zip(classes, ends, *columns, strict=True):
        rows.append(
            ClassFigures(
                name=name,
                n=int(n),
                predicted=int(predicted),
                precision=hits / predicted if predicted else 0.0,
                recall=hits / n if n else None,
                recall_ci95=interval if n else None,
                f1=2 * hits / (n + predicted) if hits else 0.0,
            )
        )
    return rows


def confusion(decided: Decisions, n_classes: int) -> Ints:
    """Return counts, int64 [true, predicted]; failed samples are in no column."""
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    scored = decided.predictions != FAILED
    np.add.at(matrix, (decided.labels[scored], decided.predictions[scored]), 1)
    return matrix


def worst_confusions(
    matrix: Ints, classes: Sequence[str], most: int = 5
) -> list[tuple[str, str, int]]:
    """Return (true, predicted, count) of the `most` most frequent mistakes, worst first."""
    matrix = matrix * ~np.eye(len(matrix), dtype=bool)
    worst = np.argsort(-matrix, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(worst, matrix.shape), strict=True)
    return [(classes[t], classes[p], int(matrix[t, p])) for t, p in pairs if matrix[t, p]]


def cost(
    manifest: Manifest, decided: Decisions, total_seconds: float | None, peak_memory: int | None
) -> Cost:
    """Return the cost of a run, summed over its images."""
    n, evaluations = len(decided), int(decided.evaluations.sum())
    seconds, equivalents = float(decided.seconds.sum()), float(decided.equivalents.sum())
    linearisations, timed = int(decided.linearisations.sum()), manifest.replayed_from is None
    return Cost(
        evaluations=evaluations,
        evaluations_per_image=evaluations / n,
        linearisations=linearisations,
        evaluation_equivalents=equivalents,
        evaluation_equivalents_per_image=equivalents / n,
        seconds=round(seconds, 3) if timed else None,  # a replay runs no model
        images_per_second=n / seconds if timed and seconds > 0 else None,
        total_seconds=None if total_seconds is None else round(total_seconds, 3),
        peak_memory_bytes=peak_memory,
        **without_none(linearisation_cost=manifest.linearisation_cost if linearisations else None),
    )


def summarize(
    manifest: Manifest,
    decided: Decisions,
    total_seconds: float | None,
    peak_memory: int | None,
) -> Summary:
    """Return a run's summary."""
    failed = int(decided.failed.sum())
    ends = None
    if decided.decided_by is not None:
        counts = Counter(reason for reason in decided.decided_by.to_pylist() if reason is not None)
        ends = Ends(**counts)
    return Summary(
        run_id=manifest.run_id,
        status="complete" if not failed else "failed_samples",
        dataset=ScoredData(**manifest.dataset.plain(), n_samples=len(decided)),
        backbone=manifest.backbone,
        strategy=manifest.strategy,
        metrics=metrics(decided, manifest.classes, manifest.items),
        cost=cost(manifest, decided, total_seconds, peak_memory),
        failed_samples=failed,
        **without_none(decided_by=ends, replayed_from=manifest.replayed_from),
    )


def summary_so_far(manifest: Manifest, stored: Summary | None, decided: Decisions) -> Summary:
    """Return a run's stored summary, or one of its images decided so far, read with `top`."""
    if stored is not None and stored.dataset.n_samples == len(manifest.samples):
        return stored
    partial = summarize(manifest, decided, None, None)
    update = without_none(status=INCOMPLETE, fitted=manifest.fitted)
    return partial.model_copy(update=update)


class Statistics(Document):
    """What `bench show --statistics --json` prints beside the summary."""

    metrics: Metrics  # metrics of the decided images
    per_class: list[ClassFigures]  # figures of each class, in label order
    confusion: list[list[Count]]  # number of images, [true][predicted]
    calibration: ReliabilityDiagram | None  # accuracy by `confidence`; None: there is none
    repeatability: Repeatability | None  # decisions that an independent run would change
    stability: Repeatability | None  # its former name; says nothing of the full sweep
    per_group: list[Group] | None = None  # accuracy of each group, the worst first
    probability: Probability | None = None
    """Quality of the probabilities of the decisions, where other images of the same question were
    calibrated."""


def statistics(
    decided: Decisions,
    classes: Sequence[str],
    items: Items | None = None,
    probable: Probability | None = None,
    repeatable: Repeatability | None = None,
) -> Statistics:
    """Return the statistics of decided images: records, or columns read with `top`."""
    groups = per_group(decided)
    return Statistics(
        metrics=metrics(decided, classes, items),
        per_class=per_class(decided, classes),
        confusion=confusion(decided, len(classes)).tolist(),
        calibration=calibration(decided),
        repeatability=repeatable,
        stability=repeatable,
        **without_none(per_group=groups or None, probability=probable),
    )
