"""A sample's record: the line of `samples.jsonl` that says what became of one image."""

from __future__ import annotations

import math
from typing import Any, TypedDict

from bench.engine.decided import Decided
from bench.strategy import Outcome

TOP = 10  # classes kept a record; 200,000 samples × 1,000 classes must stay small


class Record(TypedDict):
    """One decided image. `score` is the winner's; `top` is [class, score, draws], best first."""

    sample_id: str
    label: int
    prediction: int | None
    score: float | None
    margin: float | None
    margin_stderr: float | None
    confidence: float | None
    evaluations: int
    top: list[list[Any]]
    seconds: float
    error: str | None


def make_record(decided: Decided, seconds: float) -> Record:
    """Return the record of a decided image.

    Args:
        decided: what the engine yielded.
        seconds: the share of the run's scoring time up to this decision, since the one before;
            a run's records sum to its scoring time.
    """
    outcome = decided.outcome
    return Record(
        sample_id=decided.sample.sample_id,
        label=decided.sample.label,
        prediction=int(outcome.ranking[0]) if outcome else None,
        score=finite(outcome.scores[outcome.ranking[0]]) if outcome else None,
        margin=finite(outcome.margin) if outcome else None,
        margin_stderr=finite(outcome.margin_stderr) if outcome else None,
        confidence=finite(outcome.confidence) if outcome else None,
        evaluations=decided.evaluations,
        top=_top(outcome) if outcome else [],
        seconds=round(seconds, 4),
        error=decided.error,
    )


def _top(outcome: Outcome) -> list[list[Any]]:
    return [
        [int(c), finite(outcome.scores[c]), int(outcome.draws[c])] for c in outcome.ranking[:TOP]
    ]


def finite(value: float) -> float | None:
    """Return the value as JSON can hold it: None for what is not finite."""
    return float(value) if math.isfinite(value) else None
