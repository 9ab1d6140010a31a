"""Measurements measure what they say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers.command import bench
from helpers.engines import limit_memory, prepared

import bench as toolkit
from bench.engine.denoiser import CheckedDenoiser
from bench.errors import UserError
from bench.inputs.pixels import decode
from bench.machine.cache import read_cached
from bench.perf.measure import _fitting, measure
from bench.perf.work import evaluation_flops, in_turns, matmul_peak, pictures, ratio, scoring
from bench.running.settings import make_config
from benchmarks.speed import one_at_a_time


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


def test_the_peak_is_a_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves on by a twentieth of a second whenever it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr("bench.perf.work.time.perf_counter", lambda: next(ticks) / 20)
    peak = matmul_peak(torch.device("cpu"), torch.float32, seconds=0.2)
    assert peak == pytest.approx(2 * 512**3 / 0.05)  # longer than 0.2 / 10 s: no larger product


def test_flops_are_those_of_the_spec() -> None:
    backbone = CheckedDenoiser(toolkit.load_backbone("tiny-digits"), "tiny-digits")
    counted = evaluation_flops(backbone, backbone.encode_prompts(["a digit"]))
    assert counted == pytest.approx(67.9e6, rel=0.02)


def test_work_stops_the_engine_and_leaves_it_as_it_was() -> None:
    engine, run, samples = prepared(strategy="full", params={"draws": 6})
    work = scoring(engine, run.strategy, samples, cells=100)
    for _ in range(2):
        assert 100 <= work() <= 100 + 2 * engine.batch_size
    assert "denoise" not in vars(engine.backbone)
    conditioning = engine.backbone.encode_prompts(["one", "two"])
    assert one_at_a_time(engine, conditioning, samples, 20)() == 20
    assert {decode(p.image).size for p in pictures(24, 2)} == {(24, 24)}


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time every work once."""
    monkeypatch.setattr("bench.perf.measure.TIMED_ROUNDS", 1)


@pytest.mark.usefixtures("one_round")
def test_perf_reports_and_remembers(tmp_path: Path) -> None:
    cache = {"BENCH_CACHE_DIR": str(tmp_path)}
    done = bench(
        *("perf", "--backbone", "tiny-digits", "--dataset", "digits", "--strategy", "race"),
        *("--only", "full,race", "--sizes", "8,16", "--seconds", 0.2, "--json"),
        **cache,
    )
    assert done.code == 0, done.err
    report = done.json
    assert {"device", "dtype", "flops_per_evaluation", "peak_flops"} <= report.keys()
    assert [row["batch_size"] for row in report["bare"]] == [8, 16]
    assert set(report["engine"]) == {"full", "race"} and report["best_batch_size"] in (8, 16)
    assert 0 < report["utilisation"] < 120
    assert report["plan"]["images"] == 360
    plan = bench("run", "digits", "--dry-run", "--json", **cache).json
    assert "measured on this machine" in plan["estimate"]
    assert plan["seconds"] == pytest.approx(
        plan["evaluations"] / report["engine"]["race"], rel=0.01
    )
    sizes = json.loads(read_cached(tmp_path / "batch_sizes.bin") or b"")
    assert list(sizes.values()) == [report["best_batch_size"]]


def test_perf_counts_gradients_as_what_they_cost() -> None:
    engine, run, samples = prepared(strategy="screen-race", params={"draws": 12, "samples": 4})
    work = scoring(engine, run.strategy, samples, cells=60)
    assert work() >= 60 and engine.linear.cost > 1
    decided = list(engine.score(samples, run.strategy))
    gradients = [d.linearisations * engine.linear.cost for d in decided]
    assert [d.equivalents - d.evaluations for d in decided] == pytest.approx(gradients)


@pytest.mark.usefixtures("one_round")
def test_perf_measures_only_what_the_backbone_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench_plugins.backbones.families import StableDiffusion

    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(StableDiffusion, "can_linearise", False)
    monkeypatch.setattr("bench.perf.measure.matmul_peak", lambda *_: 1e9)
    monkeypatch.setattr("bench.perf.measure.evaluation_flops", lambda *_: 1.0)
    config = make_config({"dataset": "-", "backbone": "tiny-digits", "batch_size": 8})
    with pytest.raises(UserError, match="needs gradients"):
        measure(config, ["screen-race"], seconds=0.1)
    engines = measure(config, seconds=0.1).engine
    assert "race" in engines and not {"screen-race", "full-linearised"} & engines.keys()


def test_perf_says_what_it_cannot_do() -> None:
    assert "write it as 8,16,32" in bench("perf", "--sizes", "8,x").err
    done = bench("perf", "--compile")
    assert done.code == 2 and "--batch-size" in done.err
    assert "Did you mean" in bench("perf", "--only", "rase").err


def test_batch_sizes_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = prepared()[0]
    sizes = limit_memory(monkeypatch, engine, cells=20)
    conditioning = engine.backbone.encode_prompts(["one", "two"])
    assert _fitting(engine.backbone, conditioning, (64, 8, 16, 32)) == (8, 16)
    assert sizes == [8, 16, 32]
    with pytest.raises(torch.OutOfMemoryError):
        _fitting(engine.backbone, conditioning, (32,))
