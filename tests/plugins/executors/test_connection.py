"""Ray for a study: one connection for all runs that want the same."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from threading import Event

import pytest
from helpers.refusals import refused
from helpers.workers import Threads

from bench.running.lifecycle import Shared
from bench.running.prepare import prepare
from bench.running.settings import make_config
from bench_plugins.executors import driver
from bench_plugins.executors import ray as ray_module
from bench_plugins.executors.ray import Node


class Connection:
    """Counts what is open."""

    def __init__(self, said: list[str], name: str) -> None:
        self.said, self.name = said, name
        said.append(f"open {name}")

    def close(self) -> None:
        self.said.append(f"close {self.name}")


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_an_address_that_listens_and_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cluster with token authentication does, which answers nothing without the token."""
    given_up, ended = Event(), Event()

    def wait(**options: object) -> None:
        given_up.wait()
        ended.set()
        raise ConnectionError("no answer")

    monkeypatch.setattr(ray_module, "CONNECT_TIMEOUT", 0.1)
    monkeypatch.setattr("ray.init", wait)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with refused("RAY_AUTH_MODE=token"):
            ray_module.connect(address, None)
    given_up.set()
    assert ended.wait(10)


def test_runs_that_want_the_same_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(driver, "find_spec", lambda name: object())
    monkeypatch.setattr(driver, "connect", lambda *key: Connection(said, " ".join(map(str, key))))
    monkeypatch.setattr(driver, "nodes", lambda: [Node(4, 0)])
    monkeypatch.setattr(driver, "Actors", lambda connection, layout, most: Threads(1))
    shared = Shared(keeps_executor=True)
    quick = {"dataset": "digits", "backbone": "majority", "limit": 9, "executor": "ray"}
    for workers in (2, 2, 3):
        run = prepare(make_config({**quick, "ray_address": "auto", "workers": workers}))
        shared.open(run).close()
    shared.close_executor()
    shared.close_executor()
    assert said == ["open auto 2", "close auto 2", "open auto 3", "close auto 3"]
