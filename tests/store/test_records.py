"""A record of an image: what counts as one, whatever another hand has written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.runs import a_record

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Outcome
from bench.store.journal import finite, is_record, make_record


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"label": 3}, False),
        ({"label": "1"}, False),
        ({"prediction": 7}, False),
        ({"top": [[9, 0.1, 5]]}, False),
        ({"top": [[0, 0.1]]}, False),
        ({"evaluations": -1}, False),
        ({"confidence": 1.5}, False),
        ({"prediction": None}, False),  # neither decided nor failed
        ({"prediction": None, "error": "broken", "top": []}, True),
        ({"decided_by": "chance"}, False),
        ({"later": "field"}, True),
    ],
)
def test_every_field_is_there_and_in_its_range(changes: dict[str, Any], good: bool) -> None:
    assert is_record({**a_record("a", 0, 1), **changes}, 3) == good


@pytest.mark.parametrize("value", [None, [], "text", {}, {"sample_id": "a"}])
def test_what_is_no_record(value: object) -> None:
    assert not is_record(value, 3)


def test_a_decision_becomes_a_record() -> None:
    decided = Decided(Sample("a", 2, {}, group="g", candidates=(0, 1)))
    decided.evaluations, decided.equivalents = 12, 12.3456
    ranking, scores = np.array([1, 0, 2]), np.array([0.2, 0.1, np.nan])
    decided.outcome = Outcome(ranking, scores, np.array([4, 4, 0]), 0.1, np.inf, 0.9)
    record = make_record(decided, 0.123456)
    assert is_record(record, 3)
    assert (record["prediction"], record["score"], record["margin_stderr"]) == (1, 0.1, None)
    assert record["top"] == [(1, 0.1, 4), (0, 0.2, 4), (2, None, 0)]
    assert record["seconds"] == 0.1235 and record["equivalents"] == 12.35
    assert record["in_candidates"] is False and record["group"] == "g"


def test_an_image_that_failed_has_its_reason_and_no_decision() -> None:
    decided = Decided(Sample("a", 0, {}))
    decided.error = "broken"
    record = make_record(decided, 0.0)
    assert is_record(record, 1) and record["prediction"] is record["score"] is None
    assert record["error"] == "broken" and record["top"] == []


def test_json_has_no_infinity() -> None:
    assert finite(0.5) == 0.5
    assert finite(float("nan")) is finite(float("-inf")) is None
