"""`--limit N` means N: its images, their metrics, and nothing scored that is not missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.runs import a_record

from bench.contracts.decision import Decided
from bench.contracts.strategy import Problem
from bench.engine.asking import Engine
from bench.engine.direct import CheckedClassifier, ClassifyingEngine
from bench.inputs.prompts import make_columns
from bench.running.content import PreparedRun
from bench.running.execute import Finished, execute
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.stats.metrics.summarise import summarize
from bench.store.folder import read_manifest, read_records
from bench.store.formats.decisions import read_decisions
from bench.store.summary import read_summary
from bench.store.writing import RunFolder


class Interrupting(Engine):
    """An engine that is stopped after so many images, and counts them."""

    def __init__(self, engine: Engine, after: int | None) -> None:
        self.engine, self.after = engine, after
        self.model = engine.model
        self.scored: list[str] = []

    def score(self, samples: Any, strategy: Any) -> Iterator[Decided]:
        for sample in samples:
            if len(self.scored) == self.after:
                raise KeyboardInterrupt
            self.scored.append(sample.sample_id)
            yield from self.engine.score([sample], strategy)


class Brightness:
    """A classifier of the tests: bright digits are ones, whatever they are."""

    def score(self, images: Any, texts: Any) -> Any:
        light = [np.asarray(image.convert("L")).mean() / 255 for image in images]
        return np.outer(light, np.linspace(-1, 1, len(texts))).astype(np.float32)


def score(
    results: Path, monkeypatch: pytest.MonkeyPatch, after: int | None = None, **settings: Any
) -> tuple[Finished | None, list[str]]:
    """Run digits with an engine that costs nothing; return the end and what was scored."""
    config = {"dataset": "digits", "strategy": "full", "params": {"draws": 1}}
    run = prepare(make_config({**config, "results": results, **settings}))
    texts, engines = run.content.prompts.texts, []

    def open_engine(self: PreparedRun) -> Any:
        bright = CheckedClassifier(Brightness(), "brightness")
        problem = Problem(np.arange(10), np.zeros(1, np.int64), np.ones(1))
        columns = make_columns(np.arange(10), "best")
        engines.append(Interrupting(ClassifyingEngine(bright, texts, problem, columns, 1), after))
        return engines[-1]

    monkeypatch.setattr(PreparedRun, "open_engine", open_engine)
    monkeypatch.setattr(PreparedRun, "check", lambda self: None)
    try:
        finished = execute(run.task())
    except KeyboardInterrupt:
        finished = None
    return finished, engines[0].scored if engines else []


def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> Finished:
    finished, scored = score(tmp_path / f"alone{limit}", monkeypatch, limit=limit)
    assert finished is not None and len(scored) == limit
    return finished


def metrics(finished: Finished | None) -> dict[str, Any]:
    assert finished is not None
    return finished.summary.metrics.plain()


def test_a_smaller_limit_answers_with_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = alone(tmp_path, monkeypatch, 20)
    score(tmp_path, monkeypatch, limit=40)
    finished, scored = score(tmp_path, monkeypatch, limit=20)
    assert scored == [] and finished is not None and finished.resumed
    assert finished.manifest.samples == wanted.manifest.samples
    assert metrics(finished) == metrics(wanted)
    assert finished.summary.dataset.n_samples == 20
    stored = read_summary(finished.folder, finished.manifest)
    assert stored is not None and stored.dataset.n_samples == 40
    assert len(read_manifest(finished.folder).samples) == 40


def test_more_images_take_no_less_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole time of a run that had a summary includes that of its first images."""
    first, _ = score(tmp_path, monkeypatch, limit=5)
    assert first is not None
    cost = first.summary.cost.model_copy(update={"total_seconds": 60.0})  # as if loading took it
    with RunFolder(first.folder, first.manifest) as folder:
        folder.finish(first.summary.model_copy(update={"cost": cost}))
    more, _ = score(tmp_path, monkeypatch, limit=10)
    assert more is not None and (more.summary.cost.total_seconds or 0) > 60


def test_an_interrupted_run_is_resumed_with_fewer_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = alone(tmp_path, monkeypatch, 20)
    finished, first = score(tmp_path, monkeypatch, after=11, limit=40)
    assert finished is None and len(first) == 11
    finished, scored = score(tmp_path, monkeypatch, limit=20)
    assert finished is not None
    assert set(scored) == set(wanted.manifest.samples) - set(first)
    assert metrics(finished) == metrics(wanted)
    cost = finished.summary.cost
    assert cost.seconds is not None and cost.total_seconds is not None
    assert cost.seconds <= cost.total_seconds
    # The rest of the larger run is still outstanding, and only it.
    finished, rest = score(tmp_path, monkeypatch, limit=40)
    assert finished is not None and len(rest) == 40 - len({*first, *scored})
    assert metrics(finished) == metrics(alone(tmp_path, monkeypatch, 40))
    stored = read_summary(finished.folder, finished.manifest)
    assert stored is not None and stored.dataset.n_samples == 40


def test_a_larger_run_that_is_complete_gets_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 40 were all decided, one of them had failed, and its retry is asked for with the 20."""
    finished, _ = score(tmp_path, monkeypatch, limit=40)
    assert finished is not None
    before = metrics(finished)
    again = alone(tmp_path, monkeypatch, 20).manifest.samples[3]
    label = read_records(finished.folder)[again]["label"]
    with (finished.folder / "samples.jsonl").open("a") as file:
        file.write(json.dumps(a_record(again, label, None)) + "\n")
    (finished.folder / "summary.json").unlink()
    finished, scored = score(tmp_path, monkeypatch, limit=20)
    assert finished is not None and scored == [again]
    stored = read_summary(finished.folder, finished.manifest)
    assert stored is not None and stored.dataset.n_samples == 40
    assert stored.metrics.plain() == before


@pytest.mark.parametrize("limit", [40, 20])
def test_a_failed_image_that_is_decided_later_is_in_every_figure(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a run that was killed before it wrote the summary, or by one of fewer images."""
    few = alone(tmp_path, monkeypatch, 20).manifest.samples
    whole, _ = score(tmp_path, monkeypatch, limit=40)
    assert whole is not None
    path, manifest, records = whole.folder, whole.manifest, read_records(whole.folder)
    failed = [few[3], next(name for name in manifest.samples if name not in few)]
    with RunFolder(path, manifest) as folder:
        for name in failed:
            folder.append(a_record(name, records[name]["label"], None), None, np.zeros(0, np.int64))
        folder.finish(summarize(manifest, read_decisions(path, manifest, top=True), 1.0, None))
        for name in failed if limit == 40 else ():
            folder.append(records[name], None, np.zeros(0, np.int64))
    finished, scored = score(tmp_path, monkeypatch, limit=limit)
    assert finished is not None and scored == ([] if limit == 40 else failed[:1])
    stored = read_summary(path, manifest)
    assert stored is not None and stored.dataset.n_samples == 40
    assert stored.failed_samples == (0 if limit == 40 else 1)
    assert (metrics(finished) == metrics(whole)) == (limit == 40)


def test_the_command_and_python_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(tmp_path, monkeypatch, limit=40)
    wanted = metrics(alone(tmp_path, monkeypatch, 20))
    arguments = ("run", "digits", "--strategy", "full", "--set", "draws=1", "--limit", 20)
    done = bench(*arguments, "--results", tmp_path, "--json")
    assert done.code == 0 and done.json["metrics"] == wanted
    assert done.json["dataset"]["n_samples"] == 20 and "images," not in done.err
    shown = " ".join(bench(*arguments, "--results", tmp_path).out.split())
    assert f"({100 * wanted['accuracy']:.1f} %)" in shown and "20 of 360 images" in shown
    assert "guessing would be right for 10.0 %" in shown and "the stored run is about 40" in shown
