"""Metrics of a run from its records, or from their columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.stats.items import pair_scores, worst_group
from bench.stats.shares import accuracy_interval as accuracy_interval
from bench.stats.shares import wilson as wilson
from bench.store.decisions import FAILED, Decided, Decisions, as_decisions
from bench.store.documents import Items, Manifest
from bench.store.fields import Count, Document, Interval, Share
from bench.store.summary import Cost, Counted, Ends, Metrics, Summary

INCOMPLETE = "incomplete"  # the status of a run some of whose images are not decided


def predictions(decided: Decided) -> NDArray[np.int64]:
    """Return int64 [n]: the predicted class, -1 where the sample failed."""
    return as_decisions(decided).predictions


def labels(decided: Decided) -> NDArray[np.int64]:
    """Return int64 [n]: the true class."""
    return as_decisions(decided).labels


def metrics(decided: Decided, n_classes: int, items: Items | None = None) -> Metrics:
    """Return accuracy with its interval, balanced accuracy, precision, recall, F1 and top-5.

    Weighted averages are over the classes by their number of true samples; macro ones are plain
    means over the classes that have any. A failed sample counts as wrong. `top5_accuracy` takes
    the five best classes of each record; it is None where there are no more. `chance` is the
    accuracy of guessing. Of items, a class is an answer; see `bench.stats.items`.

    Args:
        decided: the records, or columns that were read with `top`.
        n_classes: how many classes there are.
        items: of a run of items, what they are.
    """
    decided = as_decisions(decided)
    precision, recall, f1, support = _by_class(decided, n_classes)
    seen = support > 0
    correct = int(decided.correct.sum())
    assert decided.in_top5 is not None, "columns without top were read"
    return Metrics(
        accuracy=correct / len(decided),
        accuracy_ci95=accuracy_interval(correct, len(decided)),
        balanced_accuracy=float(recall[seen].mean()),
        precision_weighted=float(np.average(precision, weights=support)),
        recall_weighted=float(np.average(recall, weights=support)),
        f1_weighted=float(np.average(f1, weights=support)),
        precision_macro=float(precision[seen].mean()),
        recall_macro=float(recall[seen].mean()),
        f1_macro=float(f1[seen].mean()),
        top5_accuracy=float(decided.in_top5.mean()) if n_classes > 5 and not items else None,
        chance=items.chance if items else 1 / n_classes,
        **_candidate_recall(decided),
        **worst_group(decided),
        **(pair_scores(decided, items) if items else {}),
    )


def _candidate_recall(decided: Decisions) -> dict[str, float]:
    if decided.in_candidates is None:
        return {}
    return {"candidate_recall": float(decided.in_candidates.mean())}


class ClassFigures(Document):
    """How right the decisions about one class were.

    Attributes:
        name: the class.
        n: images of it.
        predicted: images taken for it.
        precision: the share of these that are of it; 0 where there are none.
        recall: the share of its images taken for it, the class's accuracy; None: it has no images.
        recall_ci95: the recall's 95 % Wilson interval; None likewise.
        f1: the harmonic mean of precision and recall.
    """

    name: str = Field(alias="class")
    n: Count
    predicted: Count
    precision: Share
    recall: Share | None
    recall_ci95: Interval | None
    f1: Share


def per_class(decided: Decided, classes: Sequence[str]) -> list[ClassFigures]:
    """Return the figures of each class, in label order."""
    decided = as_decisions(decided)
    precision, recall, f1, support = _by_class(decided, len(classes))
    predicted = np.bincount(
        decided.predictions[decided.predictions != FAILED], minlength=len(classes)
    )
    hits = np.bincount(decided.labels[decided.correct], minlength=len(classes))
    ends = np.stack(wilson(hits, np.maximum(support, 1)), axis=1).tolist()
    return [
        ClassFigures(
            name=name,
            n=int(support[c]),
            predicted=int(predicted[c]),
            precision=float(precision[c]),
            recall=float(recall[c]) if support[c] else None,
            recall_ci95=ends[c] if support[c] else None,
            f1=float(f1[c]),
        )
        for c, name in enumerate(classes)
    ]


def _by_class(decided: Decided, n_classes: int) -> tuple[NDArray[Any], ...]:
    """Return precision, recall, F1 and the number of true samples of each class."""
    from sklearn.metrics import precision_recall_fscore_support

    decided = as_decisions(decided)
    found: tuple[NDArray[Any], ...] = precision_recall_fscore_support(
        decided.labels, decided.predictions, labels=np.arange(n_classes), zero_division=0
    )
    return found


def confusion(decided: Decided, n_classes: int) -> NDArray[np.int64]:
    """Return int64 [true, predicted]: counts; failed samples are in no column."""
    from sklearn.metrics import confusion_matrix

    decided = as_decisions(decided)
    if not len(decided):
        return np.zeros((n_classes, n_classes), dtype=np.int64)
    matrix: NDArray[np.int64] = confusion_matrix(
        decided.labels, decided.predictions, labels=np.arange(n_classes)
    )
    return matrix


def worst_confusions(
    matrix: NDArray[np.int64], classes: Sequence[str], most: int = 5
) -> list[tuple[str, str, int]]:
    """Return (true, predicted, count) of the most frequent mistakes, worst first.

    Args:
        matrix: int64 [true, predicted], from `confusion`.
        classes: the class names in label order.
        most: at most so many.
    """
    matrix = matrix * ~np.eye(len(matrix), dtype=bool)
    worst = np.argsort(-matrix, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(worst, matrix.shape), strict=True)
    return [(classes[t], classes[p], int(matrix[t, p])) for t, p in pairs if matrix[t, p]]


def cost(decided: Decided, total_seconds: float | None, peak_memory: int | None) -> Cost:
    """Return what the run cost, summed over its parts; see `bench.store.summary.Cost`."""
    decided = as_decisions(decided)
    n, evaluations, seconds = (
        len(decided),
        int(decided.evaluations.sum()),
        float(decided.seconds.sum()),
    )
    equivalents = float(decided.equivalents.sum())
    return Cost(
        evaluations=evaluations,
        evaluations_per_image=evaluations / n,
        linearisations=int(decided.linearisations.sum()),
        evaluation_equivalents=equivalents,
        evaluation_equivalents_per_image=equivalents / n,
        seconds=round(seconds, 3),
        images_per_second=n / seconds if seconds > 0 else None,
        total_seconds=None if total_seconds is None else round(total_seconds, 3),
        peak_memory_bytes=peak_memory,
    )


def ends(decided: Decisions) -> dict[str, Ends]:
    """Return `decided_by`, how many images each end has; nothing where no record says."""
    if decided.decided_by is None:
        return {}
    counted = Counter(decided.decided_by.to_pylist())
    counted.pop(None, None)
    return {"decided_by": Ends(**counted)}


def summarize(
    manifest: Manifest,
    decided: Decided,
    total_seconds: float | None,
    peak_memory: int | None,
) -> Summary:
    """Return a run's summary."""
    decided = as_decisions(decided)
    failed = int(decided.failed.sum())
    costs = cost(decided, total_seconds, peak_memory)
    if costs.linearisations and manifest.linearisation_cost is not None:
        price = {"linearisation_cost": manifest.linearisation_cost}
        costs = costs.model_copy(update=price)
    replayed = {}
    if manifest.replayed_from is not None:  # no model ran: its time is not known
        replayed = {"replayed_from": manifest.replayed_from}
        costs = costs.model_copy(update={"seconds": None, "images_per_second": None})
    return Summary(
        run_id=manifest.run_id,
        status="complete" if not failed else "failed_samples",
        dataset=Counted(**manifest.dataset.plain(), n_samples=len(decided)),
        backbone=manifest.backbone,
        strategy=manifest.strategy,
        metrics=metrics(decided, len(manifest.classes), manifest.items),
        cost=costs,
        failed_samples=failed,
        **ends(decided),
        **replayed,
    )


def summary_so_far(manifest: Manifest, stored: Summary | None, decided: Decisions) -> Summary:
    """Return a run's stored summary, or one of what is decided where images are outstanding.

    Args:
        manifest: the run's manifest.
        stored: its summary, of all the images asked for, of fewer, or None.
        decided: its decisions, at least one, read with `top`.
    """
    if stored is not None and stored.dataset.n_samples == len(manifest.samples):
        return stored
    partial = summarize(manifest, decided, None, None)
    fitted = {} if manifest.fitted is None else {"fitted": manifest.fitted}
    return partial.model_copy(update={"status": INCOMPLETE, **fitted})
