"""Reliability diagrams and expected calibration errors of confidences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench.store.decisions import Decisions
from bench.store.fields import Count, Document, Share
from bench.store.records import Record

CONFIDENCE_BINS = 10
EFFORT_FOLDS = 10
TEMPERATURES = np.logspace(-6, 2, 81)  # in units of the score; candidates of a grid search


class Bin(Document):
    """A bin of a reliability diagram."""

    low: Share  # lower end
    high: Share  # upper end
    n: Count
    confidence: Share | None  # mean confidence of its images; None if the bin is empty
    accuracy: Share | None  # accuracy of its images; None if the bin is empty


class ReliabilityDiagram(Document):
    """Accuracy by `confidence`."""

    n: Count  # number of images with a confidence
    bins: list[Bin]  # ten bins of equal width from 0 to 1


def reliability(confidence: Floats, correct: NDArray[np.bool_]) -> list[Bin]:
    """Return a reliability diagram of a `confidence`, float64 [n] in [0, 1], in ten equal bins."""
    bin_of = np.minimum((confidence * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    n = np.bincount(bin_of, minlength=CONFIDENCE_BINS)
    sums, hits = (
        np.bincount(bin_of, weights=w, minlength=CONFIDENCE_BINS) for w in (confidence, correct)
    )
    return [
        Bin(
            low=i / CONFIDENCE_BINS,
            high=(i + 1) / CONFIDENCE_BINS,
            n=int(n[i]),
            confidence=min(float(sums[i] / n[i]), 1.0) if n[i] else None,
            accuracy=float(hits[i] / n[i]) if n[i] else None,
        )
        for i in range(CONFIDENCE_BINS)
    ]


def calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over bins of equal width (Naeini et al., AAAI 2015).

    The arguments are as for `reliability`; n must be above 0.
    """
    bins = (b for b in reliability(confidence, correct) if b.n)
    return sum(b.n * abs((b.confidence or 0) - (b.accuracy or 0)) for b in bins) / len(confidence)


def calibration(decided: Decisions) -> ReliabilityDiagram | None:
    """Return the accuracy by `confidence`, or None if no image has a confidence.

    It has no calibration error, because `confidence` is the probability that the winner's expected
    error is below the runner-up's, not that the decision is right.
    """
    finite = np.isfinite(decided.confidence)
    if not finite.any():
        return None
    bins = reliability(decided.confidence[finite], decided.correct[finite])
    return ReliabilityDiagram(n=int(finite.sum()), bins=bins)


def effort_error(decided: Decisions) -> float | None:
    """Return the calibration error of a confidence predicted from the number of evaluations.

    It is predicted by a decreasing isotonic regression, fitted to the other nine of ten folds. None
    if all images took the same number, or if there are fewer than two images per fold.
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.model_selection import KFold, cross_val_predict

    evaluations = decided.evaluations.astype(np.float64)
    if len(decided) < 2 * EFFORT_FOLDS or (evaluations == evaluations[0]).all():
        return None
    confidence = cross_val_predict(
        IsotonicRegression(increasing=False, out_of_bounds="clip"),
        evaluations,
        decided.correct.astype(np.float64),
        cv=KFold(EFFORT_FOLDS, shuffle=True, random_state=0),
    )
    return calibration_error(confidence, decided.correct)


def softmax_error(records: Sequence[Record]) -> float | None:
    """Return the calibration error of a softmax over the negative scores of the top classes.

    Scores have no natural scale, so the temperature is fitted to these same images by maximum
    likelihood, which makes the error a lower bound. None if no record has top classes, or if those
    of an image had different draws: their scores are means over different timesteps.
    """
    scored = [r for r in records if r["top"]]
    width = max((len(r["top"]) for r in scored), default=0)
    if not width or any(len({draws for *_, draws in r["top"]}) > 1 for r in scored):
        return None
    gaps = np.full((len(scored), width), np.inf)  # score of each class minus the winner's
    is_label = np.zeros((len(scored), width), dtype=bool)
    for row, record in enumerate(scored):
        classes, scores, _ = (
            np.array(part, np.float64) for part in zip(*record["top"], strict=True)
        )
        gaps[row, : len(classes)] = np.where(np.isnan(scores), np.inf, scores - scores[0])
        is_label[row, : len(classes)] = classes == record["label"]
    likelihood, confidence = -np.inf, np.zeros(len(scored))
    for temperature in TEMPERATURES:
        softmax = np.exp(np.clip(-gaps / temperature, -np.inf, 50.0))
        softmax /= softmax.sum(axis=1, keepdims=True)
        mean_log = np.log(np.maximum((softmax * is_label).sum(axis=1), 1e-12)).mean()
        if mean_log > likelihood:
            likelihood, confidence = mean_log, softmax[:, 0]
    return calibration_error(confidence, is_label[:, 0])
