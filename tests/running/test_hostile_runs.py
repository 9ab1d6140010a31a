"""Runs with plugins that misbehave: the exit code, the message, and what is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import Finished, bench

from bench.contracts.executor import Executor, ExecutorSpec, OpenRun
from bench.contracts.specs import BackboneSpec, DatasetSpec, StrategySpec
from bench.contracts.strategy import ErrorTable, Evaluate, Outcome, Problem, Reply
from bench.discovery.loading import load_plugins

OWNER = "plugin 'hostile' of hostile-things"


class Direct:
    """A classifier that scores digits at random, and exits where it is told to."""

    batches = 0
    exits_at = 0

    def __init__(self, weights: Any, *, device: str, dtype: str) -> None:
        Direct.batches = 0

    def score(self, images: Any, texts: Any) -> Any:
        Direct.batches += 1
        if Direct.batches == Direct.exits_at:
            sys.exit(0)
        return np.random.default_rng(0).standard_normal((len(images), len(texts)), np.float32)


class Sometimes:
    """A strategy that concludes nothing of every third image."""

    images = 0

    def __init__(self, draws: int = 5) -> None:
        self.draws = draws

    def start(self, problem: Problem) -> Sometimes:
        Sometimes.images += 1
        self.table, self.asked = ErrorTable(problem), False
        return self

    def ask(self) -> Evaluate | None:
        if self.asked:
            return None
        self.asked = True
        return Evaluate(np.arange(10), np.arange(1))

    def tell(self, request: Evaluate, reply: Reply) -> None:
        self.table.tell(request, reply)

    def outcome(self) -> Outcome:
        outcome = self.table.outcome()
        return replace(outcome, confidence=7) if Sometimes.images % 3 == 0 else outcome


class Loads:
    """A dataset that loads what it is told to."""

    act: Callable[[], Any]

    def load(self, split: str | None, data_dir: str | None = None) -> Any:
        return self.act()


class Bends(Executor):
    """An executor that does what `act` does, with each of its calls and decisions."""

    act: Callable[[str, Any], Any]

    def open(self, run: Any) -> Any:
        return Bends.act("open", Bent(run.open()))

    def close(self) -> None:
        Bends.act("close", None)


class Bent(OpenRun):
    """The decisions of a run, as `Bends.act` changes them."""

    def __init__(self, opened: OpenRun) -> None:
        self.opened, self.model = opened, opened.model

    def score(self, sample_ids: Any) -> Any:
        for decided in self.opened.score(sample_ids):
            yield Bends.act("score", decided)

    def close(self) -> None:
        Bends.act("close", None)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the plugins above, for one test."""

    def fields(name: str, target: type) -> dict[str, Any]:
        return {"name": name, "target": f"{__name__}:{target.__name__}", "owner": OWNER}

    direct = BackboneSpec(scorer="classifier", **fields("direct", Direct))
    sometimes = StrategySpec(parameters={"draws": 5}, **fields("sometimes", Sometimes))
    loads = DatasetSpec(**fields("loads", Loads))
    bends = ExecutorSpec(in_process=True, **fields("bends", Bends))
    plugins = load_plugins()
    monkeypatch.setitem(plugins.executors._specs, bends.name, bends)
    monkeypatch.setitem(plugins.backbones._specs, direct.name, direct)
    monkeypatch.setitem(plugins.strategies._specs, sometimes.name, sometimes)
    monkeypatch.setitem(plugins.datasets._specs, loads.name, loads)
    monkeypatch.setattr(Direct, "exits_at", 0)


def run(results: Path, *options: object) -> Finished:
    arguments = ("run", "digits", "--backbone", "direct", "--batch-size", 4, "--limit", 12)
    return bench(*arguments, "--results", results, "--json", *options)


def test_a_strategy_that_fails_on_some_images_fails_those_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "--strategy", "sometimes")
    assert done.code == 3 and done.json["failed_samples"] == 4
    assert f"strategy 'sometimes' ({OWNER}): outcome(): " in done.err
    assert "Traceback" not in done.err and "Unexpected" not in done.err


def test_a_backbone_that_ends_the_program_ends_the_run_and_keeps_what_was_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Direct, "exits_at", 3)
    done = run(tmp_path, "--strategy", "full")
    assert (done.code, done.out) == (2, "")
    assert f"Error: backbone 'direct' ({OWNER}): score() tried to end the program" in done.err
    assert "What was decided is kept." in done.err and "Traceback" not in done.err
    [journal] = tmp_path.rglob("samples.jsonl")
    assert len(journal.read_text().splitlines()) == 8
    monkeypatch.setattr(Direct, "exits_at", 0)
    assert run(tmp_path, "--strategy", "full").code == 0
    assert len(journal.read_text().splitlines()) == 12


WANTED = "images are left, each of which is wanted once"
BENT: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "it opens nothing": ("open", lambda opened: None, "open() raised AttributeError"),
    "opening ends the program": ("open", sys.exit, "open() tried to end the program"),
    "a failure": ("score", lambda decided: 1 / 0, "score() raised ZeroDivisionError"),
    "scoring ends the program": ("score", sys.exit, "score() tried to end the program"),
    "it decides nothing": ("score", lambda decided: None, f"score() yielded None; 12 {WANTED}"),
    "another object": ("score", lambda decided: "digit", f"score() yielded digit; 12 {WANTED}"),
}


@pytest.mark.parametrize("case", BENT)
def test_an_executor_that_misbehaves_is_named(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, act, reason = BENT[case]
    bend = staticmethod(lambda name, value: act(value) if name == call else value)
    monkeypatch.setattr(Bends, "act", bend, raising=False)
    done = run(tmp_path, "--strategy", "full", "--executor", "bends")
    assert (done.code, done.out) == (2, "") and "Traceback" not in done.err
    assert f"Error: executor 'bends' ({OWNER}): {reason}" in done.err


def test_an_executor_decides_each_image_once_and_what_it_decided_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[Any] = []

    def repeats(name: str, value: Any) -> Any:
        first.extend([value] if name == "score" else [])
        return first[0] if len(first) == 4 and name == "score" else value

    monkeypatch.setattr(Bends, "act", staticmethod(repeats), raising=False)
    options = ("--strategy", "full", "--executor", "bends")
    done = run(tmp_path, *options)
    assert done.refuses(f"9 {WANTED}")
    [journal] = tmp_path.rglob("samples.jsonl")
    assert len(journal.read_text().splitlines()) == 3
    assert run(tmp_path, *options).code == 0
    assert len(journal.read_text().splitlines()) == 12


def test_an_executor_that_cannot_be_closed_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bend = staticmethod(lambda name, value: sys.exit(0) if name == "close" else value)
    monkeypatch.setattr(Bends, "act", bend, raising=False)
    done = run(tmp_path, "--strategy", "full", "--executor", "bends")
    assert done.code == 0 and done.json["status"] == "complete"
    assert f"executor 'bends' ({OWNER}): close() tried to end the program" in done.err
    assert "(exit code 0). What it started may still run." in done.err


def images_in_words() -> Any:
    import datasets

    return datasets.Dataset.from_dict({"image": ["a", "b"], "label": [0, 1]})


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (sys.exit, "load() tried to end the program"),
        (lambda: 5, "load() returned a int; expected a datasets.Dataset"),
        (images_in_words, "its column 'image' holds Value"),
    ],
)
def test_a_dataset_that_misbehaves_is_named(
    act: Callable[[], Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loads, "act", staticmethod(act), raising=False)
    done = bench("run", "loads", "--backbone", "direct", "--results", tmp_path)
    assert done.code == 2 and "Traceback" not in done.err
    assert f"dataset 'loads' ({OWNER}): {reason}" in done.err


def test_a_plan_that_is_none_is_the_backbones_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = load_plugins().backbones._specs
    monkeypatch.setitem(specs, "direct", replace(specs["direct"], plan="every other one"))
    done = bench("run", "digits", "--backbone", "direct")
    assert done.refuses("backbone 'direct'", OWNER, "its plan")
