"""What strategies ask for and conclude: used where it is right, refused by name if not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers.refusals import refused
from helpers.tables import make_problem, make_table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.contracts.dataset import Sample
from bench.contracts.strategy import (
    ErrorTable,
    Evaluate,
    Linearise,
    Outcome,
    Problem,
    Replaced,
    Reply,
)
from bench.engine.asking import MAX_LINEARISATIONS, CheckedSession, CheckedStrategy
from bench.errors import PluginError, UserError
from bench.recordings.recording import Tables
from bench.recordings.replay import decide

P, N, C = 6, 5, 3
ERRORS = make_table(P, N)
PROBLEM = replace(make_problem(ERRORS, per_class=2), can_linearise=True)
ALL = Evaluate(np.arange(P), np.arange(N))
MEAN = np.full(P, 1 / P)
EVEN = Linearise(np.arange(N), MEAN)
block: Any = Evaluate  # of what is none, too


class Scripted:
    """A strategy that asks for what it was given, then concludes what it was given."""

    draws: Any = N

    def __init__(self, requests: Any = (ALL,), outcome: Any = None) -> None:
        self.requests, self.conclusion = requests, outcome

    def start(self, problem: Problem) -> Scripted:
        self.left = iter(self.requests)
        self.table = ErrorTable(problem)
        return self

    def ask(self) -> Any:
        request = next(self.left, None)
        return request() if callable(request) else request

    def tell(self, request: Any, reply: Reply) -> None:
        if isinstance(request, Evaluate):
            self.table.tell(request, reply)

    def outcome(self) -> Any:
        told = self.table.outcome()
        return self.conclusion(told) if callable(self.conclusion) else told


def decided(strategy: Any) -> Any:
    tables = Tables(ERRORS, [(MEAN, ERRORS)], linearisation_cost=3.0)
    return decide(Sample("x", 0, {}), tables, CheckedStrategy(strategy, "strategy 'x'"), PROBLEM)


def exits() -> None:
    raise SystemExit(0)


def linearise(mixture: Any) -> Linearise:
    return Linearise(np.arange(N), mixture)


def blames() -> None:
    raise UserError("fix it")


REQUESTS: dict[str, tuple[Any, str]] = {
    "text": (["all"], "returned a str"),
    "a tuple": ([(np.arange(P), np.arange(N))], "returned a tuple"),
    "exit": ([exits], "ask() tried to end the program (exit code 0)"),
    "the user's fault": ([blames], "ask() raised UserError: fix it"),
    "ragged": ([block([[0], [1, 2]], [0])], "ask() raised ValueError"),
    "no array": ([block(None, [0])], "prompts as object"),
    "the same for ever": ([ALL] * 10**6, "a cell twice"),
    "half a mixture": ([Linearise(np.arange(N), MEAN / 2)], "sums to 0.5"),
    "nan in a mixture": ([Linearise(np.arange(N), np.full(P, np.nan))], "sums to nan"),
    "a short mixture": ([Linearise(np.arange(N), np.ones(1))], "shape (1,); expected 6 weights"),
    "a mixture of words": ([linearise(["a"] * P)], "ask() raised ValueError"),
    "a draw linearised twice": ([Linearise(np.array([1, 1]), MEAN)], "same linearisation twice"),
    "linearised again": ([EVEN, Linearise(np.array([2]), MEAN)], "same linearisation twice"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_that_cannot_be_meant_fails_the_image_and_names_the_plugin(case: str) -> None:
    requests, reason = REQUESTS[case]
    found = decided(Scripted(requests))
    assert found.outcome is None and found.error.startswith("strategy 'x': ask() ")
    assert reason in found.error


def test_asking_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def mixtures() -> Iterator[Linearise]:
        while True:
            yield Linearise(np.array([0]), np.random.default_rng().dirichlet(np.ones(P)))

    monkeypatch.setattr(Tables, "reply", lambda self, request: ERRORS[:, request.draws])
    found = decided(Scripted(mixtures()))
    assert found.linearisations == MAX_LINEARISATIONS
    assert "more than 10,000 linearisations" in found.error


def test_no_linearisation_where_there_is_none() -> None:
    problem = replace(PROBLEM, can_linearise=False)
    checked = CheckedStrategy(Scripted([EVEN]), "x")
    assert "does not offer" in str(decide(Sample("x", 0, {}), ERRORS, checked, problem).error)


def test_lists_and_small_integers_are_taken() -> None:
    first, rest = block([0, 1], [0]), block(np.arange(2, P, dtype=np.uint8), range(N))
    found = decided(Scripted([first, rest], lambda o: replace(o, ranking=o.ranking.tolist())))
    assert found.error is None and found.evaluations == 2 + 4 * N
    assert all(request.prompts.dtype == np.int64 for request, _ in found.cells)


@pytest.mark.parametrize("change", ["class_of_prompt", "timesteps", "weights", "values"])
def test_what_is_handed_out_is_read_only(change: str) -> None:
    class Writes(Scripted):
        def start(self, problem: Problem) -> Scripted:
            if change != "values":
                getattr(problem, change)[0] = 1
            return super().start(problem)

        def tell(self, request: Any, reply: Reply) -> None:
            reply.values[0] = 0

    found = decided(Writes())
    call = "tell()" if change == "values" else "start()"
    assert f"{call} writes into its input" in found.error


def test_a_request_changed_afterwards_changes_nothing() -> None:
    prompts = np.arange(P)

    class Changes(Scripted):
        def tell(self, request: Any, reply: Reply) -> None:
            super().tell(request, reply)
            prompts[:] = 0

    found = decided(Changes([block(prompts, np.arange(N))]))
    assert found.error is None and list(found.cells[0][0].prompts) == list(range(P))


@pytest.mark.parametrize("method", ["start", "tell"])
def test_other_calls_are_guarded_too(method: str) -> None:
    def bad(*_: Any) -> None:
        raise KeyError("oops")

    strategy = Scripted()
    setattr(strategy, method, bad)
    assert f"strategy 'x': {method}() raised KeyError: 'oops'" == decided(strategy).error


@pytest.mark.parametrize("draws", [None, "many", 0, -1, 1.5, True])
def test_draws_must_be_a_number(draws: Any) -> None:
    strategy = Scripted()
    strategy.draws = draws
    with refused("'x'", "draws", kind=PluginError):
        CheckedStrategy(strategy, "strategy 'x'")


def test_what_a_strategy_does_not_say() -> None:
    silent = CheckedStrategy(Scripted(), "x")
    assert (silent.at_most(PROBLEM), silent.at_least(PROBLEM)) == (P * N, None)
    assert silent.settled == {} and not silent.linearises and silent.replaces(PROBLEM) is None

    class Says(Scripted):
        linearises = True
        settled: ClassVar = {"keep": 1}

        def at_most(self, problem: Problem) -> int:
            return 7

        def at_least(self, problem: Problem) -> int:
            raise SystemExit(0)

        def replaces(self, problem: Problem) -> str:
            return "full"

    says = CheckedStrategy(Says(), "x")
    assert says.linearises and says.at_most(PROBLEM) == 7 and says.settled == {"keep": 1}
    with refused("at_least", kind=PluginError):
        says.at_least(PROBLEM)
    with refused("replaces()", kind=PluginError):
        says.replaces(PROBLEM)


@pytest.mark.parametrize("cost", [-1, float("nan"), float("inf"), "7", (1, 2), True])
@pytest.mark.parametrize("method", ["at_most", "at_least", "replaces"])
def test_a_cost_is_a_finite_number(method: str, cost: Any) -> None:
    def answer(problem: Problem) -> Any:
        return Replaced("full", cost, {}) if method == "replaces" else cost

    strategy = Scripted()
    setattr(strategy, method, answer)
    with refused(method, kind=PluginError):
        getattr(CheckedStrategy(strategy, "x"), method)(PROBLEM)


# Mostly what could be meant, and anything else.
indices = st.one_of(
    st.lists(st.integers(0, P - 1), max_size=P, unique=True),
    st.lists(st.integers(-2, P + 1), max_size=4),
    hnp.arrays(
        st.sampled_from([np.int8, np.uint64, np.float32, np.bool_, np.complex64]),
        hnp.array_shapes(min_dims=0, max_dims=2, max_side=3, min_side=0),
    ),
    st.none() | st.text(max_size=2) | st.integers(),
)
blocks = st.lists(st.builds(Evaluate, indices, indices), max_size=6)


def is_right(given: Any, count: int) -> bool:
    values = np.array(given)
    return (
        values.ndim == 1
        and values.size > 0
        and values.dtype.kind in "iu"
        and all(0 <= int(v) < count for v in values)
    )


@given(blocks)
def test_every_cell_is_asked_for_once_or_the_request_is_refused(requests: list[Evaluate]) -> None:
    strategy = CheckedStrategy(Scripted(requests), "the plugin")
    session = CheckedSession(Sample("x", 0, {}), strategy, PROBLEM)
    seen: set[tuple[int, int]] = set()
    for request in requests:
        right = is_right(request.prompts, P) and is_right(request.draws, N)
        cells = [(int(p), int(d)) for p in request.prompts for d in request.draws] if right else []
        if not right or len(set(cells)) < len(cells) or seen & set(cells):
            assert session.ask() is None
            assert str(session.decided.error).startswith("the plugin: ask()")
            return
        seen |= set(cells)
        checked = session.ask()
        assert isinstance(checked, Evaluate)
        assert checked.prompts.dtype == checked.draws.dtype == np.int64
        assert [(p, d) for p in checked.prompts for d in checked.draws] == cells


def changed(outcome: Outcome, **fields: Any) -> Outcome:
    return replace(outcome, **fields)


OUTCOMES: dict[str, tuple[Callable[[Outcome], Any], str]] = {
    "none": (lambda o: None, "returned a NoneType"),
    "a class": (lambda o: 1, "returned a int"),
    "exit": (lambda o: exits(), "outcome() tried to end the program"),
    "sure": (lambda o: changed(o, confidence=7), "confidence 7 between 0 and 1"),
    "no confidence": (lambda o: changed(o, confidence=None), "is not a number"),
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
    session = CheckedSession(Sample("x", 0, {}), strategy, PROBLEM)
    assert session.ask() is not None
    session.tell(ALL, ERRORS.copy())
    assert session.ask() is None
    if (whole := session.decided.outcome) is None:
        assert str(session.decided.error).startswith("the plugin: outcome()")
        return
    assert sorted(whole.ranking.tolist()) == list(range(C))
    assert whole.ranking.dtype == whole.draws.dtype == np.int64
    assert whole.scores.shape == whole.draws.shape == (C,) and whole.scores.dtype == np.float64
    assert math.isfinite(whole.scores[whole.ranking[0]]) and (whole.draws >= 0).all()
    assert not np.isnan(whole.scores).any()
    assert not whole.confidence < 0 and not whole.confidence > 1
