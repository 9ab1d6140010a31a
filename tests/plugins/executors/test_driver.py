"""A driver and its workers, all in this process: what is done once, and how a run ends."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.captions import one_image, two_images
from helpers.command import Finished, bench
from helpers.engines import assert_same
from helpers.given import Given
from helpers.lies import DECISIONS, FACTS, changed
from helpers.matrix import matrix
from helpers.refusals import warned
from helpers.sketch import sketched as sketched
from helpers.workers import Threads, own_caches

from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.direct import ClassifyingEngine
from bench.errors import PluginError
from bench.running.content import PreparedRun
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_records
from bench_plugins.executors import driver as module
from bench_plugins.executors.dispatch import DispatchRules
from bench_plugins.executors.driver import Driver, RayExecutor
from bench_plugins.executors.ray import _ended
from bench_plugins.executors.worker import Answer, Block, Job, Report, Worker

DIGITS: dict[str, Any] = {"dataset": "digits", "params": {"draws": 4}, "batch_size": 16, "limit": 6}


def a_run(**settings: Any) -> PreparedRun:
    return prepare(make_config({**DIGITS, **settings}))


def scored(run: PreparedRun, driver: Driver) -> dict[str, Decided]:
    try:
        return {one.sample.sample_id: one for one in driver.score(run.sample_ids)}
    finally:
        driver.close()


def alone(run: PreparedRun) -> dict[str, Decided]:
    found = run.open_engine().score(run.samples(run.sample_ids), run.strategy)
    return {one.sample.sample_id: one for one in found}


@pytest.mark.long
@pytest.mark.parametrize(
    "settings", matrix([{}, {"guidance": 2.0}], [{"guidance": 2.0}]), ids=["plain", "guided"]
)
def test_prompts_are_encoded_once_for_machines_that_share_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    run = a_run(save_errors=True, **settings)
    wanted = alone(run)
    encoded, cache_of = own_caches(monkeypatch, tmp_path)
    driver = Driver(run, Threads(3))
    driver.wait_for_all()
    assert len(encoded) == 1  # of ten prompts, which are one batch
    kept = [
        {file.name: file.read_bytes() for file in cache_of(f"worker {n}").rglob("*.safetensors")}
        for n in (1, 2, 3)
    ]
    assert len(kept[0]) == 1 and kept[0] == kept[1] == kept[2]
    assert_same(scored(run, driver), wanted)


def test_machines_that_share_a_cache_send_no_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(2)
    driver = Driver(a_run(), threads)
    driver.wait_for_all()
    driver.close()
    assert "texts" not in {method for _, method in threads.calls}


@pytest.mark.long
def test_prompts_are_encoded_again_where_their_worker_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, _ = own_caches(monkeypatch, tmp_path)
    monkeypatch.setattr(Worker, "texts", lambda self, names: {})  # as of a worker that has ended
    driver = Driver(a_run(), Threads(2))
    driver.wait_for_all()
    driver.close()
    assert sorted(encoded) == ["worker 1", "worker 2"]


@pytest.mark.long
def test_another_worker_hands_over_what_the_first_one_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, _ = own_caches(monkeypatch, tmp_path)
    threads = Threads(2)
    run = a_run()
    driver = Driver(run, threads)
    driver.wait_for_all()
    [first] = [name for name, method in threads.calls if method == "texts"]
    with warned(first):
        threads.kill(first)
        driver.wait_for_all()
        assert len(scored(run, driver)) == 6
    assert len(encoded) == 1


def report(answer: Answer, change: Callable[[Decided], Any]) -> Answer:
    """Change the decisions of a worker's report."""
    if not isinstance(answer, Report):
        return answer
    return replace(answer, decided=tuple(map(change, answer.decided)))


def told(answer: Answer, change: Callable[[ModelFacts], Any]) -> Any:
    """Change the facts that a worker reports about the model."""
    return change(answer) if isinstance(answer, ModelFacts) else answer


RUBBISH: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda answer: None if isinstance(answer, Report) else answer,
    "a table": lambda answer: {"decided": 1} if isinstance(answer, Report) else answer,
    "no list": lambda answer: changed(decided=7)(answer) if isinstance(answer, Report) else answer,
    **{f"decided: {name}": partial(report, change=lie) for name, lie in DECISIONS.items()},
    **{f"facts: {name}": partial(told, change=lie) for name, lie in FACTS.items()},
}


@pytest.fixture(scope="module")
def wanted() -> dict[str, Decided]:
    return alone(a_run(save_errors=True, strategy="full"))


OFTEN = ["decided: no decision", "decided: another label", "facts: warnings that are numbers"]


@pytest.mark.parametrize("rubbish", matrix(RUBBISH, OFTEN))
def test_a_worker_that_returns_rubbish_is_given_up_and_changes_nothing(
    rubbish: str, wanted: dict[str, Decided], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DispatchRules, "of", staticmethod(lambda workers: DispatchRules(deaths=1)))

    class Rubbish(Threads):
        def answers(self) -> list[tuple[str, Answer]]:
            return [
                (name, RUBBISH[rubbish](answer) if name == "worker 1" else answer)
                for name, answer in super().answers()
            ]

    run = a_run(save_errors=True, strategy="full")
    with warned("worker 1", kind=Warning):
        driver = Driver(run, Rubbish(2))
        driver.wait_for_all()  # so that each has images
        found = scored(run, driver)
    assert_same(found, wanted)


def test_an_image_that_ends_its_workers_fails_alone(wanted: dict[str, Decided]) -> None:
    run = a_run(save_errors=True, strategy="full")
    bad = run.sample_ids[2]

    class Poisoned(Threads):
        def score(self, name: str, block: Block) -> None:
            if any(image == bad for image, _ in block):
                self.kill(name)
            else:
                super().score(name, block)

    with warned("its process was killed", kind=Warning):
        found = scored(run, Driver(run, Poisoned(1)))
    assert "ended 5 times, 3 times with this image alone" in str(found.pop(bad).error)
    assert_same(found, {name: one for name, one in wanted.items() if name != bad})


def through_workers(
    monkeypatch: pytest.MonkeyPatch, results: Path, *options: object, workers: int = 2
) -> Finished:
    """Run a command with workers of this process in Ray's place."""
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(RayExecutor, "open", lambda self, run: Driver(run, Threads(workers)))
    given = ("--executor", "ray", "--results", results, "--batch-size", 16, "--json")
    return bench("run", *options, *given)


OPTIONS: dict[str, tuple[object, ...]] = {
    "an audit": ("--set", "draws=4", "--set", "first=2", "--limit", 6, "--audit", 3),
    "a risk": ("--limit", 20, "--set", "draws=4", "--risk", 0.3),
    "a question": ("--strategy", "uniform", "--set", "samples=1", "--set", "draws=10",
                   "--until", "width 0.5"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("case", OPTIONS)
def test_what_is_scored_besides_is_scored_by_the_workers_too(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit, the sweep of a risk, and a run that ends with its question, as in this process."""
    words = ("digits", *OPTIONS[case])
    here = bench("run", *words, "--batch-size", 16, "--results", tmp_path / "here", "--json")
    there = through_workers(monkeypatch, tmp_path / "there", *words)
    assert (here.code, there.code) == (0, 0), here.err + there.err
    for name in ("run_id", "metrics", "answer", "dataset"):
        assert here.json.get(name) == there.json.get(name)
    audits = [{**(done.json.get("audit") or {}), "seconds": 0} for done in (here, there)]
    assert audits[0] == audits[1]
    assert_same_records(here, there)


def assert_same_records(here: Finished, there: Finished) -> None:
    found, wanted = (read_records(Path(done.json["results_dir"])) for done in (there, here))
    # More than these may be in progress when a question is answered.
    assert found.keys() == wanted.keys() or ("answer" in here.json and wanted.keys() < found.keys())
    assert len(found) < 360
    exact = ("label", "prediction", "evaluations", "equivalents", "group", "shape", "error")
    for name, line in wanted.items():
        assert {k: found[name].get(k) for k in exact} == {k: line.get(k) for k in exact}
        assert found[name]["score"] == pytest.approx(line["score"], rel=1e-5)


def failing(
    monkeypatch: pytest.MonkeyPatch, kind: type, method: str, error: Exception, after: int = 0
) -> None:
    """Have a method raise an error, in every worker after so many calls in all."""
    whole: Callable[..., Any] = getattr(kind, method)
    calls = [0]

    def failed(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            raise error
        return whole(*given)

    monkeypatch.setattr(kind, method, failed)


BROKEN = PluginError("plugin x: backbone 'y'", "denoise() raised ValueError: no such layer")


@pytest.mark.long
def test_a_plugin_s_error_on_every_worker_ends_the_run_as_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, CheckedDenoiser, "denoise", BROKEN, after=40)
    options = ("digits", "--strategy", "full", "--set", "draws=8", "--limit", 16)
    done = through_workers(monkeypatch, tmp_path, *options)
    assert done.refuses("worker ", ", process ", BROKEN), done.err
    [folder] = tmp_path.iterdir()
    kept = read_records(folder)
    assert 0 < len(kept) < 16 and all(line["error"] is None for line in kept.values())
    monkeypatch.undo()
    again = bench("run", *options, "--results", tmp_path)
    assert again.code == 0 and "Resuming: " in again.err


def test_an_error_while_loading_is_no_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreparedRun, "open_engine", lambda run: 1 / 0)
    done = through_workers(monkeypatch, tmp_path, "digits", "--limit", 4)
    assert done.code == 1 and "ZeroDivisionError" in done.err.splitlines()[-1]


def test_a_defect_on_every_worker_is_said_after_as_many_starts_as_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ClassifyingEngine, "score", RuntimeError("no device"))
    done = through_workers(
        monkeypatch, tmp_path, "digits", "--backbone", "majority", "--limit", 16, workers=1
    )
    last = done.err.strip().splitlines()[-1]
    assert done.code == 1 and "worker 1 (" in last and "RuntimeError: no device" in last, done.err
    assert done.err.count("It is restarted") == 7


@pytest.mark.long
def test_workers_that_are_killed_leave_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Threads, name: str, job: Job, first: str | None) -> None:
        start(self, name, job, first)
        self.kill(name)

    start = Threads.start
    monkeypatch.setattr(Threads, "start", killed)
    done = through_workers(monkeypatch, tmp_path, "digits", "--limit", 4)
    assert done.code == 1
    assert "No worker is left" in done.err.splitlines()[-1]


@pytest.mark.parametrize("kind", [one_image, two_images])
@pytest.mark.parametrize("more", [(), ("--shard", "1/2")], ids=["whole", "shard"])
def test_items_and_shards_are_as_in_one_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    captions: None,
    kind: Callable[[], Any],
    more: tuple[str, ...],
) -> None:
    Given.rows = kind()
    words = ("captions", "--backbone", "painter", "--strategy", "full", "--set", "draws=8")
    options = (*words, *more, "--save-errors")
    here = bench("run", *options, "--results", tmp_path / "here", "--batch-size", 16, "--json")
    there = through_workers(monkeypatch, tmp_path / "there", *options)
    assert (here.code, there.code) == (0, 0), here.err + there.err
    assert here.json["run_id"] == there.json["run_id"]
    assert here.json["metrics"] == there.json["metrics"]
    assert_same_records(here, there)


def test_a_machine_without_the_toolkit_is_named() -> None:
    said = (
        "The actor died because of an error raised in its creation task, ray::Worker.__init__()"
        " (pid=13064, ip=10.0.0.7, actor_id=76940a)\n  At least one of the input arguments could"
        " not be computed:\nModuleNotFoundError: No module named 'bench'"
    )
    refused = _ended(Exception(said))
    error = refused.error("worker 1")
    assert (error.exit_code, str(refused.place)) == (2, "10.0.0.7, process 13064")
    assert str(error).startswith("worker 1: ") and "'bench'" in str(error)
    assert _ended(Exception("The actor died unexpectedly.")).again
