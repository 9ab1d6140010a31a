"""The hook of executors: the one of this process, and one of a third party in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.places import ROOT

from bench.contracts.executor import Executor, ExecutorSpec
from bench.discovery.loading import load_plugins
from bench.store.folder import read_records
from bench.testing import ExecutorContract


class TestLocal(ExecutorContract):
    def make(self) -> Executor:
        return Executor()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the executor of docs/testing.md."""
    text = (ROOT / "docs/testing.md").read_text("utf-8")
    [code] = re.findall(r"## An executor\n.*?```python\n(.*?)```", text, re.DOTALL)
    made: dict[str, Any] = {"__name__": __name__}
    exec(code, made)
    monkeypatch.setattr(f"{__name__}.Threads", made["Threads"], raising=False)
    spec = ExecutorSpec(name="threads", target=f"{__name__}:Threads", parameters={"workers": 2})
    monkeypatch.setitem(load_plugins().executors._specs, "threads", spec)


@pytest.mark.long
def test_a_third_party_s_executor_scores_as_this_process(tmp_path: Path, threads: None) -> None:
    words = ("run", "digits", "--set", "draws=4", "--limit", 12, "--batch-size", 16, "--json")
    here = bench(*words, "--results", tmp_path / "here")
    options = ("--executor", "threads", "--workers", 3, "--again", 4)
    there = bench(*words, *options, "--results", tmp_path / "there")
    assert there.code == 0, there.err
    assert there.json["metrics"] == here.json["metrics"]
    found, wanted = (read_records(Path(done.json["results_dir"])) for done in (there, here))
    exact = ("prediction", "evaluations", "error")
    assert {k: [v[name] for name in exact] for k, v in found.items()} == {
        k: [v[name] for name in exact] for k, v in wanted.items()
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--executor", "thread"), "Unknown executor 'thread'. Did you mean 'threads'?"),
        (("--executor", "threads", "--ray-address", "auto"), "does not support --ray-address"),
        (("--executor", "threads", "--slurm", 2), "--slurm and --executor exclude each other"),
    ],
)
def test_what_does_not_fit_is_refused(
    threads: None, tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    done = bench("run", "digits", *options, "--results", tmp_path)
    assert (done.code, said in done.err) == (2, True), done.err
    assert not list(tmp_path.iterdir())


def test_executors_are_listed() -> None:
    listed = {spec["name"]: spec for spec in bench("list", "executors", "--json").json}
    assert listed["ray"]["parameters"] == {"workers": "auto", "ray_address": None}
    assert "ray" in bench("list", "executors").out
