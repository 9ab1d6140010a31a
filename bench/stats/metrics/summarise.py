"""Metrics, cost, summary and statistics of a run, from its decisions."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field

from bench.contracts.metric import MetricInput
from bench.contracts.strategy import Ints
from bench.discovery.queries import metric_specs
from bench.errors import BenchError, UserError, warn_user
from bench.stats.calibration.agreement import Repeatability
from bench.stats.calibration.probability import Probability
from bench.stats.inference.class_metrics import class_counts
from bench.stats.inference.shares import (
    pair_scores,
    per_group,
    wilson,
    worst_group,
)
from bench.stats.inference.variance import spread
from bench.stats.metrics.metric_checks import checked_value
from bench.stats.metrics.metric_values import make_metric
from bench.store.formats.decisions import FAILED, Decisions
from bench.store.formats.documents import Items, Manifest
from bench.store.formats.fields import Count, Document, Interval, Share, without_none
from bench.store.summary import Cost, Ends, Group, Metrics, ScoredData, Summary

INCOMPLETE = "incomplete"  # status of a run with undecided images


def metrics(decided: Decisions, classes: Sequence[str], items: Items | None = None) -> Metrics:
    """Return the metrics of a run's summary: accuracy with its interval, balanced accuracy, etc.

    Weighted averages weight classes by their number of true samples; macro averages are plain means
    over the classes with samples. A failed sample counts as wrong. `decided` must be read with
    `top`; `classes` are the possible answers if the run decides items.
    """
    assert decided.in_top5 is not None, "decisions must be read with top"
    return Metrics(
        **_registered(decided, classes, items),
        accuracy_ci95=spread(decided.correct[None, None], decided.clusters).interval,
        chance=items.chance if items else 1 / len(classes),
        **without_none(
            about_images=None if decided.clusters is None else len(np.unique(decided.clusters)),
            worst_group=worst_group(decided.groups, decided.correct, decided.clusters),
        ),
        **(pair_scores(decided, items) if items else {}),
    )


def _registered(
    decided: Decisions, classes: Sequence[str], items: Items | None
) -> dict[str, float | None]:
    """Return the registered metrics that belong in a summary, by name.

    A value is None if the run lacks what the metric needs, or the metric is undefined, as averages
    over classes are of items. Metrics of candidates and of ranks are left out instead, and so is,
    with a warning, a metric that cannot be made, fails or returns an invalid value.
    """
    data = MetricInput(
        classes=tuple(classes),
        labels=decided.labels,
        predictions=decided.predictions,
        in_top5=decided.in_top5 if len(classes) > 5 and not items else None,
        in_candidates=decided.in_candidates,
        ranks=decided.ranks if items and len(classes) > 5 else None,
        first_ranks=decided.first_ranks,
        answers=decided.answers,
        items=items is not None,
    )
    lacks = {
        "top5": data.in_top5 is None,
        "candidates": data.in_candidates is None,
        "ranks": data.ranks is None,
    }
    values: dict[str, float | None] = {}
    for name, spec in metric_specs().items():
        missing = [need for need in spec.needs if lacks.get(need)]
        if not spec.in_summaries or {"candidates", "ranks"}.intersection(missing):
            continue
        try:
            metric, value = make_metric(spec), None
            if not missing and not (items and spec.of_classes):
                with suppress(UserError):  # undefined
                    value = checked_value(spec, metric, data)
            values[name] = value
        except BenchError as error:
            warn_user(f"{str(error).removesuffix('.')}. It is left out of the summary.")
    return values


class ClassFigures(Document):
    """Precision, recall and F1 of one class."""

    name: str = Field(alias="class")  # name of the class
    n: Count  # number of images of the class
    predicted: Count  # number of images predicted as the class
    precision: Share  # 0 if no image is predicted as the class
    recall: Share | None  # None if the class has no images
    recall_ci95: Interval | None
    f1: Share  # 0 if no image of the class is predicted as it


def per_class(decided: Decisions, classes: Sequence[str]) -> list[ClassFigures]:
    """Return precision, recall and F1 of each class, in label order."""
    hits, support, predictions = class_counts(decided.labels, decided.predictions, len(classes))
    ends = np.stack(wilson(hits, np.maximum(support, 1)), axis=1).tolist()
    columns = hits.tolist(), support.tolist(), predictions.tolist()
    return [
        ClassFigures(
            name=name,
            n=int(n),
            predicted=int(predicted),
            precision=right / predicted if predicted else 0.0,
            recall=right / n if n else None,
            recall_ci95=interval if n else None,
            f1=2 * right / (n + predicted) if right else 0.0,
        )
        for name, interval, right, n, predicted in zip(classes, ends, *columns, strict=True)
    ]


class Confusions(NamedTuple):
    """Number of scored images of each pair of classes that occurs, sorted; all int64 [pairs]."""

    true: Ints
    predicted: Ints
    counts: Ints

    def square(self, classes: Ints) -> Ints:
        """Return the confusion matrix of some classes, ascending, int64 [true, predicted]."""
        inside = np.isin(self.true, classes) & np.isin(self.predicted, classes)
        rows, columns = (np.searchsorted(classes, of[inside]) for of in (self.true, self.predicted))
        matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
        matrix[rows, columns] = self.counts[inside]
        return matrix

    def worst(self, most: int) -> Self:
        """Return the most frequent confusions of two different classes, worst first."""
        wrong = np.flatnonzero(self.true != self.predicted)
        worst = wrong[np.argsort(-self.counts[wrong], kind="stable")[:most]]
        return type(self)(*(column[worst] for column in self))

    def totals(self, n_classes: int) -> Ints:
        """Return the number of scored images of each true class, int64 [classes]."""
        return np.bincount(self.true, self.counts, n_classes).astype(np.int64)


def confusions_of(decided: Decisions) -> Confusions:
    """Count the pairs of true and predicted class; failed samples are left out.

    A matrix of 5,000 classes would take 200 MB, and sorting it as much again.
    """
    scored = decided.predictions != FAILED
    true, predicted = decided.labels[scored], decided.predictions[scored]
    classes = int(predicted.max(initial=0)) + 1
    pairs, counts = np.unique(true * classes + predicted, return_counts=True)
    return Confusions(*np.divmod(pairs, classes), counts)


def worst_confusions(
    confusions: Confusions, classes: Sequence[str], most: int = 5
) -> list[tuple[str, str, int]]:
    """Return (true, predicted, count) of the most frequent confusions, worst first."""
    rows = zip(*(column.tolist() for column in confusions.worst(most)), strict=True)
    return [(classes[true], classes[predicted], count) for true, predicted, count in rows]


def cost(
    manifest: Manifest, decided: Decisions, total_seconds: float | None, peak_memory: int | None
) -> Cost:
    """Return the cost of a run, summed over its images.

    `total_seconds` is wall-clock time, `peak_memory` is in bytes. A replay has no scoring time.
    """
    n, timed, flop = len(decided), manifest.replayed_from is None, manifest.evaluation_flop
    evaluations, linearisations = int(decided.evaluations.sum()), int(decided.linearisations.sum())
    seconds, equivalents = float(decided.seconds.sum()), float(decided.equivalents.sum())
    return Cost(
        evaluations=evaluations,
        evaluations_per_image=evaluations / n,
        linearisations=linearisations,
        evaluation_equivalents=equivalents,
        evaluation_equivalents_per_image=equivalents / n,
        seconds=round(seconds, 3) if timed else None,
        images_per_second=n / seconds if timed and seconds > 0 else None,
        total_seconds=None if total_seconds is None else round(total_seconds, 3),
        peak_memory_bytes=peak_memory,
        **without_none(
            linearisation_cost=manifest.linearisation_cost if linearisations else None,
            flop_per_image=flop and flop * (1 if manifest.classifier else equivalents / n),
        ),
    )


def summarize(
    manifest: Manifest, decided: Decisions, total_seconds: float | None, peak_memory: int | None
) -> Summary:
    """Return a run's summary; the wall-clock time and peak memory are None if unknown."""
    failed, reasons = int(decided.failed.sum()), decided.decided_by
    ends = None if reasons is None else Ends(**Counter(reasons.drop_null().to_pylist()))
    return Summary(
        run_id=manifest.run_id,
        status="complete" if not failed else "failed_samples",
        dataset=ScoredData(**manifest.dataset.plain(), n_samples=len(decided)),
        backbone=manifest.backbone,
        strategy=manifest.strategy,
        metrics=metrics(decided, manifest.classes, manifest.items),
        cost=cost(manifest, decided, total_seconds, peak_memory),
        failed_samples=failed,
        **without_none(
            decided_by=ends, replayed_from=manifest.replayed_from, warnings=manifest.warnings
        ),
    )


def summary_so_far(manifest: Manifest, stored: Summary | None, decided: Decisions) -> Summary:
    """Return a finished run's summary, or one of the images so far. `decided` must have `top`."""
    if stored is not None and stored.dataset.n_samples == len(manifest.samples):
        return stored
    partial = summarize(manifest, decided, None, None)
    update = without_none(status=INCOMPLETE, fitted=manifest.fitted)
    return partial.model_copy(update=update)


def up_to_date(summary: Summary, manifest: Manifest, decisions: Callable[[], Decisions]) -> Summary:
    """Return a stored summary as it would be written now, without a part that was wrong or missing.

    The metrics of items are computed again: early summaries have averages over classes, and count
    items about one image as independent in some intervals. The interval of the worst group is
    added, if it is missing.
    """
    if manifest.items is not None:
        computed = metrics(decisions(), manifest.classes, manifest.items)
        computed = computed.model_copy(update={"anytime_ci95": summary.metrics.anytime_ci95})
        return summary.model_copy(update={"metrics": computed})
    worst = summary.metrics.worst_group
    if worst is None or worst.lowest_ci95 is not None:
        return summary
    decided = decisions()
    update = {"worst_group": worst_group(decided.groups, decided.correct, decided.clusters)}
    return summary.model_copy(update={"metrics": summary.metrics.model_copy(update=update)})


class Statistics(Document):
    """What `bench show --statistics --json` adds to the summary."""

    metrics: Metrics  # metrics of the decided images
    per_class: list[ClassFigures]  # in label order; empty of items, which have no classes
    confusion: list[list[Count]]  # number of images, [true][predicted]; empty of items
    repeatability: Repeatability | None  # decisions that an independent run would change
    per_group: list[Group] | None = None  # accuracy of each group, worst first
    probability: Probability | None = None
    """Quality of the probabilities that decisions are right; None if no calibration applies."""


def statistics(
    decided: Decisions,
    classes: Sequence[str],
    items: Items | None = None,
    probable: Probability | None = None,
    repeatable: Repeatability | None = None,
) -> Statistics:
    """Return the statistics of decided images, read with `top`."""
    groups = per_group(decided.groups, decided.correct, decided.clusters)
    return Statistics(
        metrics=metrics(decided, classes, items),
        per_class=[] if items else per_class(decided, classes),
        confusion=[] if items else confusions_of(decided).square(np.arange(len(classes))).tolist(),
        repeatability=repeatable,
        **without_none(per_group=groups or None, probability=probable),
    )
