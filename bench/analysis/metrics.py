"""Metrics of a run from its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.store.records import Record

FAILED = -1  # the prediction of a sample that failed: no class, so it counts as wrong


def predictions(records: Sequence[Record]) -> NDArray[np.int64]:
    """Return int64 [n]: the predicted class, -1 where the sample failed."""
    return np.array([FAILED if r["prediction"] is None else r["prediction"] for r in records])


def labels(records: Sequence[Record]) -> NDArray[np.int64]:
    """Return int64 [n]: the true class."""
    return np.array([r["label"] for r in records])


def accuracy_interval(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of `correct` out of `n` (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def metrics(records: Sequence[Record], n_classes: int) -> dict[str, Any]:
    """Return accuracy with its interval, balanced accuracy, weighted precision, recall, F1, top-5.

    Weighted averages are over the classes by their number of true samples. A failed sample counts
    as wrong. `top5_accuracy` takes the five best classes of each record.
    """
    from sklearn.metrics import precision_recall_fscore_support

    true, predicted = labels(records), predictions(records)
    precision, recall, f1, support = precision_recall_fscore_support(
        true, predicted, labels=np.arange(n_classes), zero_division=0
    )
    weights = support / support.sum()
    correct = int((true == predicted).sum())
    in_top5 = [r["label"] in [entry[0] for entry in r["top"][:5]] for r in records]
    return {
        "accuracy": correct / len(records),
        "accuracy_ci95": list(accuracy_interval(correct, len(records))),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "precision_weighted": float(precision @ weights),
        "recall_weighted": float(recall @ weights),
        "f1_weighted": float(f1 @ weights),
        "top5_accuracy": float(np.mean(in_top5)),
    }


def confusion(records: Sequence[Record], n_classes: int) -> NDArray[np.int64]:
    """Return int64 [true, predicted]: counts; failed samples are in no column."""
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    true, predicted = labels(records), predictions(records)
    good = predicted != FAILED
    np.add.at(matrix, (true[good], predicted[good]), 1)
    return matrix


def worst_confusions(
    records: Sequence[Record], classes: Sequence[str], most: int = 5
) -> list[tuple[str, str, int]]:
    """Return (true, predicted, count) of the most frequent mistakes, worst first."""
    wrong: Counter[tuple[int, int]] = Counter(
        (r["label"], r["prediction"])
        for r in records
        if r["prediction"] is not None and r["prediction"] != r["label"]
    )
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return [(classes[true], classes[said], count) for (true, said), count in ranked[:most]]


def cost(
    records: Sequence[Record], total_seconds: float, peak_memory: int | None
) -> dict[str, Any]:
    """Return what the run cost, summed over its parts."""
    evaluations = sum(r["evaluations"] for r in records)
    seconds = sum(r["seconds"] for r in records)
    return {
        "evaluations": evaluations,
        "evaluations_per_image": evaluations / len(records),
        "seconds": round(seconds, 3),
        "images_per_second": len(records) / seconds if seconds > 0 else None,
        "total_seconds": round(total_seconds, 3),
        "peak_memory_bytes": peak_memory,
    }


def summarize(
    manifest: Mapping[str, Any],
    records: Sequence[Record],
    total_seconds: float,
    peak_memory: int | None,
) -> dict[str, Any]:
    """Return a run's summary, the object that `bench run --json` prints (but for its folder)."""
    failed = sum(r["error"] is not None for r in records)
    costs = cost(records, total_seconds, peak_memory)
    replayed = {}
    if "replayed_from" in manifest:  # no model ran: its time is not known
        replayed = {"replayed_from": manifest["replayed_from"]}
        costs.update(seconds=None, images_per_second=None)
    return {
        "run_id": manifest["run_id"],
        "status": "complete" if not failed else "failed_samples",
        "dataset": {**manifest["dataset"], "n_samples": len(records)},
        "backbone": manifest["backbone"],
        "strategy": manifest["strategy"],
        "metrics": metrics(records, len(manifest["classes"])),
        "cost": costs,
        "failed_samples": failed,
        **replayed,
    }
