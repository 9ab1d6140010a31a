"""What strategies conclude: used where it is whole, refused by name where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.scripted import ALL, ERRORS, PROBLEM, C, N, P, Scripted, decided, exits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Outcome
from bench.engine.asking import CheckedStrategy, Interview


def changed(outcome: Outcome, **fields: Any) -> Outcome:
    return replace(outcome, **fields)


OUTCOMES: dict[str, tuple[Callable[[Outcome], Any], str]] = {
    "none": (lambda o: None, "returned a NoneType"),
    "a class": (lambda o: 1, "returned a int"),
    "exit": (lambda o: exits(), "outcome() tried to end the program"),
    "winner without": (lambda o: changed(o, scores=np.full(C, np.inf)), "score is not finite"),
    "sure": (lambda o: changed(o, confidence=7), "confidence 7 between 0 and 1"),
    "unsure": (lambda o: changed(o, confidence=-0.1), "confidence -0.1 between"),
    "no confidence": (lambda o: changed(o, confidence=None), "is not a number"),
    "complex margin": (lambda o: changed(o, margin=1j), "is not a number"),
    "stderr": (lambda o: changed(o, margin_stderr=-1.0), "margin_stderr -1 must be 0 or more"),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_an_outcome_that_is_none_fails_the_image_and_names_the_plugin(case: str) -> None:
    conclude, reason = OUTCOMES[case]
    image = decided(Scripted(outcome=conclude))
    assert image.outcome is None and "strategy 'x': outcome()" in image.error
    assert reason in image.error and image.evaluations == P * N


@pytest.mark.parametrize(
    ("change", "value"),
    [("confidence", math.nan), ("margin", math.nan), ("margin", math.inf), ("confidence", 1)],
)
def test_what_is_not_known_is_taken(change: str, value: float) -> None:
    image = decided(Scripted(outcome=lambda o: changed(o, **{change: value})))
    assert image.error is None
    np.testing.assert_equal(getattr(image.outcome, change), value)


def test_a_class_without_a_draw_has_an_infinite_score() -> None:
    fields = {"ranking": [1, 0, 2], "scores": [0.2, 0.1, np.inf], "draws": [N, N, 0]}
    image = decided(Scripted(outcome=lambda o: changed(o, **fields)))
    assert image.error is None and image.outcome.scores[2] == np.inf


numbers = st.floats(width=32) | st.integers(-2, 2) | st.none() | st.text(max_size=1)


def columns(elements: Any) -> Any:
    return st.one_of(
        st.permutations(range(C)),
        st.lists(elements, min_size=C, max_size=C),
        st.lists(elements, max_size=5),
        hnp.arrays(st.sampled_from([np.float32, np.int16, np.bool_]), hnp.array_shapes(max_side=4)),
    )


outcomes = st.builds(
    Outcome,
    ranking=columns(st.integers(-1, C)),
    scores=columns(st.floats()),
    draws=columns(st.integers(-1, N)),
    margin=numbers,
    margin_stderr=numbers,
    confidence=st.floats(0, 1) | numbers,
)


@given(outcomes)
def test_an_outcome_is_whole_or_refused(outcome: Outcome) -> None:
    strategy = CheckedStrategy(Scripted(outcome=lambda _: outcome), "the plugin")
    interview = Interview(Sample("x", 0, {}), strategy, PROBLEM)
    assert interview.ask() is not None
    interview.tell(ALL, ERRORS.copy())
    assert interview.ask() is None
    if (whole := interview.decided.outcome) is None:
        assert str(interview.decided.error).startswith("the plugin: outcome()")
        return
    assert sorted(whole.ranking.tolist()) == list(range(C))
    assert whole.ranking.dtype == whole.draws.dtype == np.int64
    assert whole.scores.shape == whole.draws.shape == (C,) and whole.scores.dtype == np.float64
    assert math.isfinite(whole.scores[whole.ranking[0]]) and (whole.draws >= 0).all()
    assert not np.isnan(whole.scores).any()
    assert not whole.confidence < 0 and not whole.confidence > 1
