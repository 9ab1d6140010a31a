"""Calibration by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.runs import a_record

from bench.contracts.strategy import Ints
from bench.stats.calibration import (
    calibration_error,
    effort_error,
    softmax_error,
)
from bench.store.decisions import as_decisions


def test_calibration_error() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, False, True, False])
    expected = (2 * 0.95 - 1 + (2 * 0.55 - 1)) / 4
    assert calibration_error(confidence, correct) == pytest.approx(expected)


def test_softmax_finds_its_temperature() -> None:
    rng = np.random.default_rng(0)
    records = []
    for _ in range(4000):  # labels drawn from a softmax at temperature 0.01: calibrated then
        scores = np.sort(rng.uniform(0, 0.05, size=5))
        shares = np.exp(-scores / 0.01)
        label = rng.choice(5, p=shares / shares.sum())
        top = [[c, float(s), 9] for c, s in enumerate(scores)]
        records.append(a_record("x", int(label), 0, confidence=1.0, top=top))
    error = softmax_error(records)
    assert error is not None and error < 0.05


def test_confidence_by_evaluations_is_learned_from_other_images() -> None:
    rng = np.random.default_rng(0)

    def error(evaluations: Ints) -> float | None:
        right = rng.random(len(evaluations)) < 1 / (1 + evaluations / 400)
        return effort_error(
            as_decisions(
                [
                    a_record("x", 0, int(not r), evaluations=int(e))
                    for r, e in zip(right, evaluations, strict=True)
                ]
            )
        )

    learned = error(rng.integers(40, 4000, size=4000))
    assert learned is not None and learned < 0.05
    assert error(np.full(4000, 100)) is None
    memorised = error(np.arange(200))  # every value once: in-sample it would be near 0
    assert memorised is not None and memorised > 0.01
