"""`execute` opens what scores a run only where it is needed, closes it always, and stores all."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.refusals import refused, warned
from helpers.scripted import Scripted

from bench.contracts.decision import Decided
from bench.running.content import PreparedRun
from bench.running.execute import execute
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_manifest, read_records
from bench.store.writing import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> PreparedRun:
    settings: dict[str, Any] = {"dataset": "digits", "backbone": "random", "limit": 6}
    return prepare(make_config({**settings, "results": str(tmp_path)}))


def test_what_was_decided_before_an_interruption_is_kept_and_not_scored_again(
    run: PreparedRun,
) -> None:
    opened: list[Scripted] = []

    def interrupted(of: PreparedRun) -> Scripted:
        opened.append(Scripted(of, ends_after=4))
        return opened[-1]

    with pytest.raises(KeyboardInterrupt):
        execute(run.task(interrupted))
    assert opened[0].closed and len(read_records(run.folder)) == 4
    finished = execute(run.task(Scripted))
    assert finished.summary.dataset.n_samples == 6 and not finished.resumed
    assert finished.summary.cost.evaluations == 60


def test_a_comparison_of_precisions_that_comes_late_is_kept(run: PreparedRun) -> None:
    """Among workers, one compares, and another may answer first."""

    class Late(Scripted):
        def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
            yield from super().score(sample_ids)
            figures = {"noise": 0.1, "bias": "not shown", "decisions": 0, "images": 2}
            self.model = replace(self.model, rounding={**figures, "prompts": 3, "draws": 16})

    execute(run.task(Late))
    kept = read_manifest(run.folder).rounding
    assert kept is not None and kept.noise == 0.1


def test_nothing_is_opened_for_a_run_that_is_complete(run: PreparedRun) -> None:
    first = execute(run.task(Scripted))

    def never(of: PreparedRun) -> Scripted:
        raise AssertionError("opened for nothing")

    again = execute(run.task(never))
    assert again.resumed and again.summary == first.summary


def test_a_stored_run_of_a_plugin_says_that_its_code_has_changed(run: PreparedRun) -> None:
    def with_code(**code: str) -> PreparedRun:
        environment = {**run.manifest.environment, "code": code}
        changes = {"environment": environment}
        return replace(run, manifest=run.manifest.model_copy(update=changes))

    own = "diffusion-classifier-bench"
    execute(with_code(mine="a", **{own: "a"}).task(Scripted))
    with warned("of mine has"):
        assert execute(with_code(mine="b", **{own: "b"}).task(Scripted)).resumed
    with warned("of mine and other"):
        assert execute(with_code(other="a", **{own: "a"}).task(Scripted)).resumed
    with warnings.catch_warnings():  # the toolkit raises a version if results change
        warnings.simplefilter("error")
        assert execute(with_code(mine="a", **{own: "b"}).task(Scripted)).resumed


def test_a_run_that_another_process_writes_is_refused_before_anything_is_loaded(
    run: PreparedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(self: PreparedRun) -> None:
        raise AssertionError("loaded for nothing")

    monkeypatch.setattr(PreparedRun, "check", loads)
    with (
        RunFolder(run.folder, run.manifest),
        refused("Another process"),
    ):
        execute(run.task(Scripted))
