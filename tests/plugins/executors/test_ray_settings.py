"""Which executor is asked for, how many workers fit where, and one connection for all runs."""

import socket
from importlib.util import find_spec
from threading import Event
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.workers import Threads

from bench.running.lifecycle import LoadedResources
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench_plugins.executors import driver
from bench_plugins.executors import ray as ray_module
from bench_plugins.executors.ray import Layout, Node, connect, environment, plan_workers

ONE, EIGHT = Node(4, 0), Node(64, 8)


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "wanted"),
    [
        ([EIGHT], "auto", None, Layout(8, 1, 1, 8)),  # one per GPU
        ([EIGHT, EIGHT, Node(4, 0)], None, "cuda", Layout(16, 1, 1, 8)),
        ([EIGHT], 3, None, Layout(3, 1, 1, 8)),
        ([ONE], "auto", None, Layout(1, 4, 0, 4)),  # without a GPU one per machine
        ([ONE, Node(16, 0)], "auto", None, Layout(2, 4, 0, 4)),
        ([EIGHT], "auto", "cpu", Layout(1, 64, 0, 64)),
        ([ONE], 2, None, Layout(2, 2, 0, 2)),
        ([ONE], 3, None, Layout(3, 1, 0, 1)),
        ([ONE, ONE], 3, None, Layout(3, 2, 0, 2)),
        ([ONE], 9, None, Layout(9, 1, 0, 1)),
    ],
)
def test_how_many_workers_there_are(
    nodes: list[Node], workers: int | str | None, device: str | None, wanted: Layout
) -> None:
    assert plan_workers(nodes, workers, device, own=True) == wanted


def test_a_cluster_may_grow_and_a_machine_does_not() -> None:
    assert plan_workers([EIGHT], 20, None, own=False).workers == 20
    with refused("at most 8"):
        plan_workers([EIGHT], 20, None, own=True)
    with refused("GPU"):
        plan_workers([ONE], None, "cuda", own=True)


def test_threads_are_set_for_a_worker_and_the_user_s_own_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setenv("BENCH_BLOCK_PLUGINS", "some")
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    found = environment(Layout(2, 8, 0, 8))
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("3", "3")
    assert found["BENCH_BLOCK_PLUGINS"] == "some"
    assert (found["MALLOC_ARENA_MAX"], found["GOMP_SPINCOUNT"]) == ("1", "1000")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2"], "--workers"),
        (["--ray-address", "auto"], "--ray-address"),
        (["--executor", "ray", "--workers", "0"], "--workers"),
        (["--executor", "ray", "--workers", "many"], "--workers"),
        (["--executor", "dask"], "dask"),
        (["--executor", "ray", "--device", "cuda:1"], "--device cuda"),
        (["--executor", "ray", "--slurm", "2"], "--slurm"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "find_spec", lambda name: object())
    assert bench("run", "digits", *options).refuses(said)


def test_without_ray_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find_spec", lambda name: None)
    done = bench("run", "digits", "--executor", "ray")
    assert done.refuses("diffusion-classifier-bench[ray]") and done.err.strip().count("\n") == 0


def test_objects_in_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench as toolkit

    monkeypatch.setattr(driver, "find_spec", lambda name: object())
    rows: Any = toolkit.load_dataset("digits")
    with refused("in memory"):
        toolkit.run(rows, executor="ray")


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
@pytest.mark.parametrize(
    "address", ["nowhere", "ray://a:1", ":6379", "127.0.0.1:{free}", "127.0.0.1:99999"]
)
def test_an_address_where_nobody_answers_is_refused(address: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        named = address.format(free=unused.getsockname()[1])
        with refused(f"--ray-address {named}"):
            connect(named, None)


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
    shared = LoadedResources()
    quick = {"dataset": "digits", "backbone": "majority", "limit": 9, "executor": "ray"}
    for workers in (2, 2, 3):
        run = prepare(make_config({**quick, "ray_address": "auto", "workers": workers}))
        shared.open(run).close()
    shared.close()
    shared.close()
    assert said == ["open auto 2", "close auto 2", "open auto 3", "close auto 3"]
