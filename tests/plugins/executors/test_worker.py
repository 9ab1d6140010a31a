"""A worker in this process: the same decisions as without one, and what it refuses."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from helpers.engines import assert_same
from helpers.sketch import sketched as sketched

from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts
from bench.engine.direct import ClassifyingEngine
from bench.running.content import PreparedRun
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench_plugins.executors.dispatch import Dispatch
from bench_plugins.executors.worker import Answer, Block, Ended, Job, Report, Worker, WorkerProcess

BASE: dict[str, Any] = {"dataset": "digits", "strategy": "race", "params": {"draws": 12}}
QUICK = {"dataset": "digits", "backbone": "majority", "limit": 8}


def a_run(**settings: Any) -> PreparedRun:
    return prepare(make_config({"batch_size": 16, "limit": 6, **settings}))


def block_of(run: PreparedRun, ids: tuple[str, ...]) -> Block:
    return tuple((name, run.split.hash_sample(name)) for name in ids)


def loaded(run: PreparedRun) -> tuple[Worker, Iterator[Answer]]:
    """Return a worker that has loaded the model, and its further answers."""
    worker = Worker(Job.of(run))
    answers = worker.answers()
    assert isinstance(next(answers), WorkerProcess)
    assert isinstance(next(answers), ModelFacts)
    return worker, answers


def scored(run: PreparedRun) -> dict[str, Decided]:
    """Have one worker score a run, block by block."""
    worker, answers = loaded(run)
    dispatch, decided, now, blocks = Dispatch(run.sample_ids, ["a"]), {}, 0.0, 0
    while dispatch.left:
        now += 0.01
        if not blocks:
            worker.score(block_of(run, dispatch.give("a", now)))
            blocks += 1
        report = next(answers)
        assert isinstance(report, Report), report
        blocks -= report.taken
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
    found = scored(run)
    local = run.open_engine().score(run.samples(run.sample_ids), run.strategy)
    assert_same(found, {one.sample.sample_id: one for one in local})
    assert all(one.sample.image == {} for one in found.values())  # images are not sent back


def test_errors_that_nobody_keeps_are_not_sent() -> None:
    run = a_run(**QUICK)
    assert all(one.cells == [] for one in scored(run).values())


def library(name: str) -> Callable[[Job], Job]:
    return lambda job: replace(job, packages={**job.packages, name: "0.1"})


# What differs on a worker's machine, and what it says of it; HERE stands for the source's digest.
OTHERS: dict[str, tuple[Callable[[Job], Job], tuple[str, ...]]] = {
    "no plugin": (
        lambda job: replace(job, code={**job.code, "bench-absent": "0" * 16}),
        ("bench-absent",),
    ),
    "other sources": (
        lambda job: replace(job, code=dict.fromkeys(job.code, "0" * 16)),
        ("0" * 16, "HERE"),
    ),
    **{
        name: (library(name), (f"{name} is ", "0.1"))
        for name in ("torch", "diffusers", "transformers", "numpy")
    },
    "other weights": (
        lambda job: replace(job, identity=job.identity.replace('"weights": "', '"weights": "0')),
        ("backbone.weights",),
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_worker_where_something_else_would_compute_refuses(case: str) -> None:
    change, named = OTHERS[case]
    job = Job.of(a_run(**(BASE if case == "other weights" else QUICK)))
    ended = next(Worker(change(job)).answers())
    assert isinstance(ended, Ended) and "process" in str(ended.place)
    for word in named:
        assert word.replace("HERE", next(iter(job.code.values()))) in ended.reason


def test_versions_that_change_no_number_are_no_reason_to_refuse() -> None:
    job = Job.of(a_run(**QUICK))
    build = job.packages["torch"].partition("+")[0] + "+cu999"
    packages = {**job.packages, "torch": build, "datasets": "1"}
    assert isinstance(next(Worker(replace(job, packages=packages)).answers()), WorkerProcess)


def test_a_worker_with_other_images_refuses_the_first_that_differs() -> None:
    run = a_run(**QUICK)
    worker, answers = loaded(run)
    name = run.sample_ids[0]
    worker.score(((name, "another"),))
    ended = next(answers)
    assert isinstance(ended, Ended)
    assert f"{name!r} is not the driver's" in ended.reason


def decisions(answers: Iterator[Answer], images: int) -> list[Decided]:
    """Return this number of decisions."""
    decided: list[Decided] = []
    while len(decided) < images:
        report = next(answers)
        assert isinstance(report, Report), report
        decided += report.decided
    return decided


def test_a_block_that_follows_an_empty_one_at_once_is_scored_and_so_are_those_before() -> None:
    run = a_run(**BASE)
    worker, answers = loaded(run)
    for ids in (run.sample_ids[:1], (), run.sample_ids[1:], ()):
        worker.score(block_of(run, tuple(ids)))
    decided = decisions(answers, len(run.sample_ids))
    assert decided[0].sample.sample_id == run.sample_ids[0]
    assert {one.sample.sample_id for one in decided} == set(run.sample_ids)


def test_what_the_engine_raises_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(**QUICK)
    monkeypatch.setattr(ClassifyingEngine, "score", lambda *_: 1 / 0)
    worker, answers = loaded(run)
    worker.score(block_of(run, (run.sample_ids[0],)))
    ended = next(answers)
    assert isinstance(ended, Ended) and ended.again
    assert "ZeroDivisionError" in ended.reason
