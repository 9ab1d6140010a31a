"""A worker in this process: the same decisions as without one, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from helpers.engines import assert_same
from helpers.sketch import sketched as sketched

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.engine.classifying import ClassifyingEngine
from bench.engine.denoising import DenoisingEngine
from bench.running.executors.dispatch import Dispatch
from bench.running.executors.job import job_of
from bench.running.executors.messages import Ended, Opened, WorkerProcess
from bench.running.executors.worker import Worker
from bench.running.prepare import prepare
from bench.running.question import PreparedRun
from bench.running.settings import make_config

BASE: dict[str, Any] = {"dataset": "digits", "strategy": "race", "params": {"draws": 12}}
QUICK = {"dataset": "digits", "backbone": "majority", "limit": 8}


def a_run(**settings: Any) -> PreparedRun:
    return prepare(make_config({"batch_size": 16, "limit": 6, **settings}))


def scored(run: PreparedRun, worker: Worker) -> dict[str, Decided]:
    """Have one worker score a run, as the driver does it."""
    assert isinstance(worker.prepare(), WorkerProcess)
    assert isinstance(worker.open(), Opened)
    dispatch, decided, now = Dispatch(run.sample_ids, ["a"]), {}, 0.0
    while dispatch.left:
        now += 0.01
        block = dispatch.give("a", now)
        report = worker.score(block, tuple(map(run.split.hash_sample, block)))
        assert report.end is None, report.end
        decided.update({one.sample.sample_id: one for one in report.decided})
        dispatch.decided("a", [one.sample.sample_id for one in report.decided], now)
    return decided


@pytest.mark.parametrize(
    "settings",
    [
        {**BASE, "save_errors": True},
        {**BASE, "save_errors": True, "views": "flip"},
        {**BASE, "save_errors": True, "control": "shuffled-images"},
        {**QUICK, "backbone": "nearest-mean", "save_errors": True},  # it learns, from another split
    ],
    ids=["race", "views", "shuffled", "learns"],
)
def test_a_worker_decides_as_the_engine_does(settings: dict[str, Any]) -> None:
    run = a_run(**settings)
    found = scored(run, Worker(job_of(run)))
    local = run.open_engine().score(run.samples(run.sample_ids), run.strategy)
    assert_same(found, {one.sample.sample_id: one for one in local})
    assert all(one.sample.image == {} for one in found.values())  # images are not sent back


def test_errors_that_nobody_keeps_are_not_sent() -> None:
    run = a_run(**QUICK)
    assert all(one.cells == [] for one in scored(run, Worker(job_of(run))).values())


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"bench-absent": "1.0"}, "plugin bench-absent 1.0 is not installed here"),
        ({"diffusion-classifier-bench": "0.0.0"}, "0.0.0 on the driver"),
    ],
)
def test_a_worker_without_the_plugins_refuses(versions: dict[str, str], said: str) -> None:
    answer = Worker(replace(job_of(a_run(**QUICK)), versions=versions)).prepare()
    assert isinstance(answer, Ended)
    assert said in str(answer.error("worker 1")) and "process" in str(answer.place)


def test_a_worker_with_other_sources_of_the_same_version_refuses() -> None:
    job = job_of(a_run(**QUICK))
    [name] = job.code
    answer = Worker(replace(job, code={name: "0" * 16})).prepare()
    assert isinstance(answer, Ended)
    assert answer.reason.startswith(f"the source files of {name} ")
    assert f"({job.code[name]} here, and {'0' * 16} there)" in answer.reason


@pytest.mark.parametrize("library", ["torch", "diffusers", "transformers", "numpy"])
def test_a_worker_whose_libraries_compute_other_numbers_refuses(library: str) -> None:
    job = job_of(a_run(**QUICK))
    answer = Worker(replace(job, packages={**job.packages, library: "0.1"})).prepare()
    assert isinstance(answer, Ended)
    assert f"{library} is {job.packages[library]} here, and 0.1 on the driver" in answer.reason


def test_versions_that_change_no_number_are_reported_and_no_reason_to_refuse() -> None:
    job = job_of(a_run(**QUICK))
    build = job.packages["torch"].partition("+")[0] + "+cu999"
    answer = Worker(replace(job, packages={**job.packages, "torch": build, "datasets": "1"}))
    place = answer.prepare()
    assert isinstance(place, WorkerProcess)
    assert place.differences == (
        f"datasets is {job.packages['datasets']} here, and 1 on the driver",
        f"torch is {job.packages['torch']} here, and {build} on the driver",
    )


def test_a_worker_whose_weights_differ_refuses() -> None:
    run = a_run(**BASE)
    job = job_of(run)
    other = run.manifest.identity.backbone.weights
    assert other is not None
    answer = Worker(replace(job, identity=job.identity.replace(other, "0" * 64))).prepare()
    assert isinstance(answer, Ended)
    assert f"backbone.weights is {other}" in answer.reason


def test_a_worker_with_other_images_refuses_the_first_that_differs() -> None:
    run = a_run(**QUICK)
    worker = Worker(job_of(run))
    assert isinstance(worker.prepare(), WorkerProcess) and isinstance(worker.open(), Opened)
    name = run.sample_ids[0]
    report = worker.score((name,), ("another",))
    report = report if report.end else worker.score((), ())
    assert isinstance(report.end, Ended)
    assert f"{name!r} is not the driver's" in report.end.reason


def test_a_block_is_there_before_the_engine_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call returns when its images are taken: those of the next block fill up the batches."""
    run = a_run(**{**BASE, "limit": 12})
    worker = Worker(job_of(run))
    assert isinstance(worker.prepare(), WorkerProcess) and isinstance(worker.open(), Opened)
    passes, score = [0], DenoisingEngine.score

    def counted(*arguments: Any) -> Any:
        passes[0] += 1
        return score(*arguments)

    monkeypatch.setattr(DenoisingEngine, "score", counted)
    decided = 0
    for start in range(0, 12, 4):
        block = tuple(run.sample_ids[start : start + 4])
        decided += len(worker.score(block, tuple(map(run.split.hash_sample, block))).decided)
    while decided < 12:
        decided += len(worker.score((), ()).decided)
    assert passes == [1]


def test_a_block_that_follows_an_empty_one_at_once_is_scored_and_so_are_those_before() -> None:
    """The empty block still waits for a decision: the engine must not wait for more images."""
    run = a_run(**BASE)
    worker = Worker(job_of(run))
    assert isinstance(worker.prepare(), WorkerProcess) and isinstance(worker.open(), Opened)
    first, second = run.sample_ids[:1], run.sample_ids[1:]
    worker.score(tuple(first), tuple(map(run.split.hash_sample, first)))
    with ThreadPoolExecutor(2) as calls:
        last = calls.submit(worker.score, (), ())
        more = calls.submit(worker.score, tuple(second), tuple(map(run.split.hash_sample, second)))
        decided = [*last.result(timeout=60).decided, *more.result(timeout=60).decided]
    while len(decided) < len(run.sample_ids):
        decided += worker.score((), ()).decided
    assert {one.sample.sample_id for one in decided} == set(run.sample_ids)


def test_what_the_engine_raises_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(**QUICK)
    worker = Worker(job_of(run))
    worker.prepare()
    worker.open()
    monkeypatch.setattr(ClassifyingEngine, "score", _fails(RuntimeError("no device")))
    name = run.sample_ids[0]
    report = worker.score((name,), (run.split.hash_sample(name),))
    report = report if report.end else worker.score((), ())
    assert report.end is not None and report.end.again
    assert report.end.reason == "unexpected RuntimeError: no device"


def _fails(error: Exception) -> Callable[..., Sample]:
    def fail(*_: object) -> Sample:
        raise error

    return fail
