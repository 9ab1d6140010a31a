"""Real workers of Ray, which take ten seconds of work each to start: these tests are slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench import hookimpl
from bench.discovery.loading import load_plugins
from bench.errors import BenchWarning
from bench.running.execute import execute
from bench.running.executors.ray import RayExecutor
from bench.running.prepare import prepare
from bench.running.settings import make_config
from bench.store.folder import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
EXACT = ("label", "prediction", "evaluations", "equivalents", "decided_by", "error")


class _Killer:
    """Kills the worker that holds most, when so many images are decided."""

    def __init__(self, after: int) -> None:
        self.after, self.decided = after, 0
        self.executor: RayExecutor | None = None
        self.killed: list[int] = []

    @hookimpl
    def sample_scored(self, record: object) -> None:
        self.decided += 1
        executor = self.executor
        if self.decided != self.after or executor is None or executor.dispatch is None:
            return
        name = max(executor.actors, key=executor.dispatch.holds)
        place = executor.actors[name].place
        assert place is not None
        os.kill(place.process, signal.SIGKILL)
        self.killed.append(place.process)


@pytest.fixture
def killer() -> Iterator[_Killer]:
    one, manager = _Killer(after=3), load_plugins().manager
    manager.register(one)
    yield one
    manager.unregister(one)


def test_a_killed_worker_changes_no_answer(tmp_path: Path, killer: _Killer) -> None:
    settings: dict[str, Any] = {
        "dataset": "digits",
        "limit": 16,
        "params": {"draws": 30},
        "batch_size": 16,
        "save_errors": True,
    }
    alone = execute(prepare(make_config({**settings, "results": str(tmp_path / "alone")})))
    given = {"executor": "ray", "workers": 2, "device": "cpu", "results": str(tmp_path / "ray")}
    run = prepare(make_config({**settings, **given}))

    def watched(_: object) -> RayExecutor:
        killer.executor = RayExecutor(run)
        return killer.executor

    killer.decided = 0
    with pytest.warns(BenchWarning, match=r"worker \d \(.*\) ended: its process was ended"):
        together = execute(run, watched)
    assert killer.killed
    assert together.manifest.run_id == alone.manifest.run_id
    found, wanted = read_records(together.folder), read_records(alone.folder)
    assert found.keys() == wanted.keys()
    for name, line in wanted.items():  # to float32's digits, as with other neighbours in a batch
        assert {k: found[name][k] for k in EXACT} == {k: line[k] for k in EXACT}
        assert [(c, n) for c, _, n in found[name]["top"]] == [(c, n) for c, _, n in line["top"]]
        assert found[name]["score"] == pytest.approx(line["score"], rel=1e-5)
    journal = (together.folder / "samples.jsonl").read_text().splitlines()
    assert len(journal) == 16  # nothing twice
    kept = [sorted(p.name for p in (r.folder / "errors").rglob("*")) for r in (alone, together)]
    assert kept[0] == kept[1]


def test_ctrl_c_keeps_what_was_decided(tmp_path: Path) -> None:
    options = ["--executor", "ray", "--workers", "1", "--device", "cpu", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "bench", "run", "digits", "--split", "train", *options]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not any(path.stat().st_size for path in tmp_path.rglob("samples.jsonl")):
            assert running.poll() is None, "it ended by itself"
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=300)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "What was decided is kept; the same command resumes." in said
    [journal] = tmp_path.rglob("samples.jsonl")
    assert all(json.loads(line)["error"] is None for line in journal.read_text().splitlines())
