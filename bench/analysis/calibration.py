"""Is a decision right as often as its confidence says?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.analysis.metrics import labels, predictions
from bench.store.records import Record
from bench.strategy import Floats

BINS = 10
TEMPERATURES = np.logspace(-6, 2, 81)  # in units of the score


def calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015).

    The mean over equally wide bins of |mean confidence - accuracy|, weighted by their images.

    Args:
        confidence: float64 [n], from 0 to 1.
        correct: bool [n].
    """
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bin_of, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def confidence_error(records: Sequence[Record]) -> float:
    """Return the calibration error of the strategy's own confidence; 0 for a failed image."""
    confidence = np.array([r["confidence"] or 0.0 for r in records])
    return calibration_error(confidence, labels(records) == predictions(records))


def softmax_error(records: Sequence[Record]) -> float | None:
    """Return the calibration error of a softmax over minus the scores of the record's top classes.

    None where the classes of an image had different draws, as after an elimination: their scores
    are means over different timesteps then, and do not compare.
    Scores have no natural scale, so the temperature is the one that suits these very images best
    (the highest likelihood of their labels): this favours the softmax, it is a bound for it.
    """
    scored = [r for r in records if r["top"]]
    width = max((len(r["top"]) for r in scored), default=0)
    if not width or any(len({draws for *_, draws in r["top"]}) > 1 for r in scored):
        return None
    gaps = np.full((len(scored), width), np.inf)  # of each class's score to the winner's
    hit = np.zeros((len(scored), width), dtype=bool)
    for row, record in enumerate(scored):
        for place, (index, score, _) in enumerate(record["top"]):
            gaps[row, place] = np.inf if score is None else score - record["top"][0][1]
            hit[row, place] = index == record["label"]
    likelihood, confidence = -np.inf, np.zeros(len(scored))
    for temperature in TEMPERATURES:
        shares = np.exp(np.clip(-gaps / temperature, -np.inf, 50.0))
        shares /= shares.sum(axis=1, keepdims=True)
        logs = np.log(np.maximum((shares * hit).sum(axis=1), 1e-12)).mean()
        if logs > likelihood:
            likelihood, confidence = logs, shares[:, 0]
    return calibration_error(confidence, hit[:, 0])
