"""Calibration: is a decision right as often as its confidence says?"""

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
TEMPERATURES = np.logspace(-6, 2, 81)  # in units of the score


class Bin(Document):
    """A bin of a reliability diagram."""

    low: Share  # lower end
    high: Share  # upper end
    n: Count
    confidence: Share | None  # mean confidence of its images; None: it is empty
    accuracy: Share | None  # accuracy of its images; None: it is empty


class ReliabilityDiagram(Document):
    """Accuracy by `confidence`."""

    n: Count  # number of images with a confidence
    bins: list[Bin]  # ten bins from 0 to 1


def reliability(confidence: Floats, correct: NDArray[np.bool_]) -> list[Bin]:
    """Return ten bins of equal width of confidences from 0 to 1, float64 [n]."""
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
    """Return the expected calibration error (Naeini et al., AAAI 2015).

    The mean over bins of equal width of |mean confidence - accuracy|, weighted by their images.
    """
    bins = (b for b in reliability(confidence, correct) if b.n)
    return sum(b.n * abs((b.confidence or 0) - (b.accuracy or 0)) for b in bins) / len(confidence)


def calibration(decided: Decisions) -> ReliabilityDiagram | None:
    """Return the accuracy by `confidence`; None: no image has a confidence.

    There is no calibration error: `confidence` is about the expected errors of two prompts, not
    about the decision being right.
    """
    finite = np.isfinite(decided.confidence)
    if not finite.any():
        return None
    bins = reliability(decided.confidence[finite], decided.correct[finite])
    return ReliabilityDiagram(n=int(finite.sum()), bins=bins)


def effort_error(decided: Decisions) -> float | None:
    """Return the calibration error of a confidence predicted from the number of evaluations.

    The prediction is by isotonic regression (accuracy does not rise with the evaluations), fitted
    to the images of the other nine of ten folds.
    None where every image cost the same, or there are fewer than two images per fold.
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
    """Return the calibration error of a softmax over minus the scores of the record's top classes.

    None where the classes of an image had different draws, as after an elimination: their scores
    are means over different timesteps and do not compare. Scores have no natural scale, so the
    temperature is fitted to these images (maximum likelihood of their labels): a lower bound.
    """
    scored = [r for r in records if r["top"]]
    width = max((len(r["top"]) for r in scored), default=0)
    if not width or any(len({draws for *_, draws in r["top"]}) > 1 for r in scored):
        return None
    gaps = np.full((len(scored), width), np.inf)  # each class's score less the winner's
    hit = np.zeros((len(scored), width), dtype=bool)
    for row, record in enumerate(scored):
        classes, scores, _ = (
            np.array(part, np.float64) for part in zip(*record["top"], strict=True)
        )
        gaps[row, : len(classes)] = np.where(np.isnan(scores), np.inf, scores - scores[0])
        hit[row, : len(classes)] = classes == record["label"]
    likelihood, confidence = -np.inf, np.zeros(len(scored))
    for temperature in TEMPERATURES:
        shares = np.exp(np.clip(-gaps / temperature, -np.inf, 50.0))
        shares /= shares.sum(axis=1, keepdims=True)
        logs = np.log(np.maximum((shares * hit).sum(axis=1), 1e-12)).mean()
        if logs > likelihood:
            likelihood, confidence = logs, shares[:, 0]
    return calibration_error(confidence, hit[:, 0])
