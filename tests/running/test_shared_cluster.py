"""Ray for a study: one connection for all runs that want the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.running import run as module
from bench.running.run import SharedBackbone, SharedCluster


class Connection:
    """Counts what is open."""

    def __init__(self, said: list[str], name: str) -> None:
        self.said, self.name = said, name
        said.append(f"open {name}")

    def close(self) -> None:
        self.said.append(f"close {self.name}")


def test_runs_that_want_the_same_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def connect(address: str | None, workers: int) -> Connection:
        return Connection(said, f"{address} {workers}")

    monkeypatch.setattr(module, "connect", connect)
    monkeypatch.setattr(module, "executor_of", lambda *_: lambda run: said.append("scores"))
    shared = SharedCluster()

    def score(executor: str, workers: int) -> None:
        config = SimpleNamespace(executor=executor, ray_address="auto", workers=workers)
        run: Any = SimpleNamespace(config=config)
        shared.executor_of(run, SharedBackbone(), [])(run)

    score("local", 2)
    assert said == ["scores"]  # nothing was opened for it
    for workers in (2, 2, 3):
        score("ray", workers)
    shared.close()
    shared.close()
    assert said[1:] == [
        *("open auto 2", "scores", "scores", "close auto 2"),
        *("open auto 3", "scores", "close auto 3"),
    ]
