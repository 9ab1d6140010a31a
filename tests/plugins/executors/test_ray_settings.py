"""Which executor is asked for, and how many workers fit where."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused

from bench_plugins.executors import driver
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
    found = environment(Layout(2, 8, 0, 8))
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("3", "3")
    assert found["BENCH_BLOCK_PLUGINS"] == "some"


def test_a_worker_s_own_variables_give_way_to_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    found = environment(Layout(1, 1, 0, 1))
    assert (found["MALLOC_ARENA_MAX"], found["GOMP_SPINCOUNT"]) == ("1", "1000")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2"], "--workers has no effect without --executor"),
        (["--ray-address", "auto"], "--ray-address has no effect without --executor"),
        (["--executor", "ray", "--workers", "0"], "--workers: "),
        (["--executor", "ray", "--workers", "many"], "--workers: "),
        (["--executor", "dask"], "dask"),
        (["--executor", "ray", "--device", "cuda:1"], "use --device cuda"),
        (["--executor", "ray", "--slurm", "2"], "--slurm and --executor exclude each other"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "find_spec", lambda name: object())
    done = bench("run", "digits", *options)
    assert (done.code, said in done.err) == (2, True), done.err


def test_without_ray_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "find_spec", lambda name: None)
    done = bench("run", "digits", "--executor", "ray")
    [line] = done.err.strip().splitlines()
    assert done.code == 2 and "pip install 'diffusion-classifier-bench[ray]'" in line


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
