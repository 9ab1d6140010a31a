"""The hook of executors: the one of this process, and one of a third party in the documentation."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers.command import bench
from helpers.lies import DECISIONS, FACTS
from helpers.places import ROOT
from helpers.refusals import refused
from helpers.sketch import sketched as sketched

from bench.contracts.executor import Executor, ExecutorSpec, OpenRun, ScorableRun
from bench.discovery.loading import load_plugins
from bench.errors import PluginError
from bench.running.lifecycle import LoadedResources
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_manifest, read_records
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
    ("options", "named"),
    [(("thread",), "'threads'"), (("threads", "--ray-address", "auto"), "--ray-address")],
)
def test_what_does_not_fit_is_refused(
    threads: None, tmp_path: Path, options: tuple[object, ...], named: str
) -> None:
    assert bench("run", "digits", "--results", tmp_path, "--executor", *options).refuses(named)
    assert not list(tmp_path.iterdir())


def test_executors_are_listed() -> None:
    listed = {spec["name"]: spec for spec in bench("list", "executors", "--json").json}
    assert listed["ray"]["parameters"] == {"workers": "auto", "ray_address": None}
    assert "ray" in bench("list", "executors").out


class Lying(Executor):
    """An executor of others: it scores here, and changes what it returns after four images."""

    decision: ClassVar[Callable[[Any], Any]] = staticmethod(lambda decided: decided)
    facts: ClassVar[Callable[[Any], Any]] = staticmethod(lambda facts: facts)
    other: ClassVar[Mapping[str, Any]] = {}

    def open(self, run: ScorableRun) -> OpenRun:
        opened, lying = run.open(), type(self)

        class Opened(OpenRun):
            model = lying.facts(opened.model)

            def score(self, sample_ids: Iterable[str]) -> Iterator[Any]:
                vars(self).update(lying.other)
                for number, decided in enumerate(opened.score(sample_ids)):
                    yield decided if number < 4 else lying.decision(decided)

        Opened.device = lying.other.get("device")
        return Opened()


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ExecutorSpec(name="lying", target=f"{__name__}:Lying", in_process=True)
    monkeypatch.setitem(load_plugins().executors._specs, "lying", spec)


SWEEP = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 6, "--save-errors")
OTHER: dict[str, dict[str, Any]] = {
    "memory in words": {"peak_memory": "much"},
    "negative memory": {"peak_memory": -1},
    "a number as the device": {"device": 3},
}
LIES = [
    *(("decision", name) for name in DECISIONS),
    *(("facts", name) for name in FACTS),
    *(("other", name) for name in OTHER),
]


@pytest.fixture
def lie(lying: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return what makes the executor tell one lie alone."""
    tables: dict[str, Any] = {"decision": DECISIONS, "facts": FACTS, "other": OTHER}
    honest = {kind: vars(Lying)[kind] for kind in tables}

    def tell(kind: str, name: str) -> None:
        for other, value in honest.items():
            monkeypatch.setattr(Lying, other, value)
        told = tables[kind][name]
        monkeypatch.setattr(Lying, kind, told if kind == "other" else staticmethod(told))

    return tell


def test_what_an_executor_cannot_have_got_from_the_run_is_refused(
    lie: Callable[[str, str], None], tmp_path: Path
) -> None:
    settings = {"dataset": "digits", "strategy": "full", "params": {"draws": 2}, "limit": 6}
    more = {"save_errors": True, "executor": "lying", "results": str(tmp_path)}
    run, shared = prepare(make_config({**settings, **more})), LoadedResources()  # one model for all
    for kind, name in LIES:
        lie(kind, name)
        with refused("'lying'", kind=PluginError):
            list(shared.open(run).score(run.sample_ids))


@pytest.mark.parametrize("told", [LIES[0], LIES[len(DECISIONS)], LIES[-1]])
def test_a_lie_is_not_stored(
    told: tuple[str, str], lie: Callable[[str, str], None], tmp_path: Path
) -> None:
    lie(*told)
    done = bench(*SWEEP, "--executor", "lying", "--results", tmp_path)
    assert done.refuses("'lying'"), done.err
    if told[0] == "decision":  # the four before it are kept, and are true
        [folder] = tmp_path.glob("digits-*")
        records = read_records(folder)
        assert len(records) == 4 and not any(r["error"] for r in records.values())
        assert read_manifest(folder).warnings is None
    here = bench(*SWEEP, "--results", tmp_path / "here", "--json").json
    resumed = bench(*SWEEP, "--results", tmp_path, "--json")
    assert resumed.code == 0 and resumed.json["metrics"] == here["metrics"], resumed.err


@pytest.mark.parametrize(
    "settings",
    [
        ("--backbone", "random"),
        ("--strategy", "full", "--set", "draws=2", "--save-errors", "--audit", 2),
        ("--strategy", "vote", "--set", "draws=3"),
        ("--template", "a {class}", "--template", "the {class}", "--template-rule", "mean"),
        ("--candidates-from", "digits-random-full-3bae6f72", "--top", 3, "--set", "draws=4"),
        ("--corrupt", "fog:3", "--set", "draws=2", "--again", 2),
    ],
    ids=lambda words: str(words[1]),
)
def test_an_honest_executor_is_believed(
    settings: tuple[object, ...], lying: None, tmp_path: Path
) -> None:
    words = ("run", "digits", "--limit", 6, *settings, "--batch-size", 16, "--json", "--results")
    here, there = (
        bench(*words, tmp_path / name, "--executor", name) for name in ("local", "lying")
    )
    assert there.code == here.code == 0, there.err
    assert there.json["metrics"] == here.json["metrics"]
    ours, theirs = (read_records(Path(done.json["results_dir"])) for done in (here, there))
    assert [{**record, "seconds": 0} for record in ours.values()] == [
        {**record, "seconds": 0} for record in theirs.values()
    ]
