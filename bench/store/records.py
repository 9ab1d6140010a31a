"""A sample's record: the line of `samples.jsonl` that says what became of one image."""

from __future__ import annotations

import math
from typing import Any, TypedDict

from bench.contracts.decision import Decided
from bench.contracts.strategy import Outcome

TOP = 10  # classes kept a record; 200,000 samples × 1,000 classes must stay small


class Record(TypedDict):
    """One decided image. `score` is the winner's; `top` is [class, score, draws], best first.

    `linearisations` are draws linearised, and `equivalents` what these and the evaluations cost
    together, in evaluations; records of before there were any lack both.
    """

    sample_id: str
    label: int
    prediction: int | None
    score: float | None
    margin: float | None
    margin_stderr: float | None
    confidence: float | None
    evaluations: int
    linearisations: int
    equivalents: float
    top: list[list[Any]]
    seconds: float
    error: str | None


def is_record(value: Any, n_classes: int) -> bool:
    """Tell whether a line of `samples.jsonl` is a record of a run with so many classes.

    Another hand may have edited it: every field must be there and of its type.
    """
    return (
        isinstance(value, dict)
        and isinstance(value.get("sample_id"), str)
        and _is_class(value.get("label"), n_classes)
        and (value.get("prediction") is None or _is_class(value["prediction"], n_classes))
        and all(_is_number(value.get(name)) for name in ("evaluations", "seconds"))
        and isinstance(value["evaluations"], int)
        and all(
            name in value and (value[name] is None or _is_number(value[name]))
            for name in ("score", "margin", "margin_stderr", "confidence")
        )
        and isinstance(value.get("error", 0), str | None)
        and isinstance(value.get("top"), list)
        and all(
            isinstance(entry, list)
            and len(entry) == 3
            and _is_class(entry[0], n_classes)
            and (entry[1] is None or _is_number(entry[1]))
            for entry in value["top"]
        )
    )


def _is_class(value: Any, n_classes: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < n_classes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
        linearisations=decided.linearisations,
        equivalents=round(decided.equivalents, 2),
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
