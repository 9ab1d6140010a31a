"""benchmarks/timing.py: workloads do what is timed."""

from __future__ import annotations

import pytest
from helpers.engines import prepared

from bench.inputs.pixels import decode
from benchmarks.speed import one_at_a_time
from benchmarks.timing import in_turns, pictures, ratio, scoring


def test_turns_are_interleaved_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    now = 0.0

    def work(name: str, seconds: float) -> int:
        nonlocal now
        order.append(name)
        now += seconds
        return 10

    works = {"a": lambda: work("a", 1.0), "b": lambda: work("b", 2.0)}
    rates = in_turns(works, rounds=2, clock=lambda: now)
    assert order == ["a", "b"] * 3
    assert rates == {"a": [10.0, 10.0], "b": [5.0, 5.0]} and ratio(rates, "a", "b") == 2


def test_work_stops_the_engine_and_leaves_it_as_it_was() -> None:
    engine, run, samples = prepared(strategy="full", params={"draws": 6})
    work = scoring(engine, run.strategy, samples, cells=100)
    for _ in range(2):
        assert 100 <= work() <= 100 + 2 * engine.batch_size
    assert "denoise" not in vars(engine.backbone)
    conditioning = engine.backbone.encode_prompts(["one", "two"])
    assert one_at_a_time(engine, conditioning, samples, 20)() == 20
    assert {decode(p.image).size for p in pictures(24, 2)} == {(24, 24)}


def test_gradients_count_as_what_they_cost() -> None:
    engine, run, samples = prepared(strategy="screen-race", params={"draws": 12, "samples": 4})
    work = scoring(engine, run.strategy, samples, cells=60)
    assert work() >= 60 and engine.linear.cost > 1
    decided = list(engine.score(samples, run.strategy))
    gradients = [d.linearisations * engine.linear.cost for d in decided]
    assert [d.equivalents - d.evaluations for d in decided] == pytest.approx(gradients)
