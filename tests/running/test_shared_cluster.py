"""Ray for a study: one connection for all runs that want the same."""

from __future__ import annotations

import pytest

from bench.running import lifecycle as module
from bench.running.lifecycle import Shared
from bench.running.settings import RunConfig


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
    shared = Shared()
    for workers in (2, 2, 3):
        shared.connect(RunConfig(dataset="digits", ray_address="auto", workers=workers))
    shared.disconnect()
    shared.disconnect()
    assert said == ["open auto 2", "close auto 2", "open auto 3", "close auto 3"]
