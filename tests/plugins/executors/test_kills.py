"""Real processes of Ray are killed during a run, whose records stay those of one process.

These tests take minutes: `pytest -m slow tests/plugins/executors/test_kills.py`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.command import PATIENCE, bench_process
from helpers.workers import arguments, descendants

from bench.store.folder import read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
EXACT = ("label", "prediction", "evaluations", "equivalents", "decided_by", "error")
IMAGES = 600
RUN = ["run", "digits", "--split", "train", "--limit", str(IMAGES), "--set", "draws=30", "--json"]
WORKERS = ["--executor", "ray", "--workers", "2", "--device", "cpu"]
A_NODE_LEAVES = """
import subprocess, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

results, *command = sys.argv[1:]
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
leaves = nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
running = subprocess.Popen([*command, "--ray-address", nodes.address])
try:
    while sum(1 for file in Path(results).rglob("samples.jsonl") for _ in file.open()) < 100:
        assert running.poll() is None, "it ended by itself"
        time.sleep(0.2)
    nodes.remove_node(leaves, allow_graceful=False)
    sys.exit(running.wait())
finally:
    running.kill()
    nodes.shutdown()
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers(process: int) -> list[int]:
    """Return the processes of Ray's workers below a driver's."""
    processes = []
    for child in descendants(process):
        try:
            if b"ray::Worker" in arguments(child):
                processes.append(child)
        except OSError:  # it has just ended
            continue
    return processes


def decided(results: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in results.rglob("samples.jsonl"))


def wait_for(running: subprocess.Popen[str], results: Path, images: int) -> None:
    end = time.monotonic() + PATIENCE
    while decided(results) < images:
        assert running.poll() is None and time.monotonic() < end, running.communicate()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The records of one process."""
    done = bench_process(*RUN, "--results", tmp_path_factory.mktemp("alone"))
    assert done.code == 0, done.err
    return read_records(Path(done.json["results_dir"]))


def assert_same(folder: Path, wanted: dict[str, Any]) -> None:
    journal = (folder / "samples.jsonl").read_text().splitlines()
    assert len(journal) == len({json.loads(line)["sample_id"] for line in journal}) == IMAGES
    records = read_records(folder)
    assert records.keys() == wanted.keys()
    for name, line in wanted.items():  # to float32's digits, as with other neighbours in a batch
        assert {k: records[name][k] for k in EXACT} == {k: line[k] for k in EXACT}
        assert records[name]["score"] == pytest.approx(line["score"], rel=1e-5)


def test_twenty_killed_workers_change_no_answer(tmp_path: Path, alone: dict[str, Any]) -> None:
    running = start(*RUN, *WORKERS, "--results", tmp_path)
    try:
        for kill in range(20):
            # Each kill follows a decision since the last one, as a worker is given up otherwise.
            wait_for(running, tmp_path, 10 + kill * 25)
            while not (alive := workers(running.pid)):
                time.sleep(0.05)
            os.kill(alive[kill % len(alive)], signal.SIGKILL)
        out, err = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == 0, err
    assert err.count("its process was killed") == 20, err
    assert "(raylet)" not in err  # it is said once, by the driver
    assert_same(Path(json.loads(out)["results_dir"]), alone)


def test_a_killed_driver_leaves_no_process_and_resumes(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    running = start(*RUN, *WORKERS, "--results", tmp_path)
    try:
        wait_for(running, tmp_path, 100)
        left = list(descendants(running.pid))
    finally:
        running.kill()
        running.communicate()
    end = time.monotonic() + PATIENCE  # Ray takes a minute on a busy machine
    while alive := [child for child in left if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < end, alive
        time.sleep(0.5)
    again = bench_process(*RUN, *WORKERS, "--results", tmp_path)
    assert again.code == 0, again.err
    assert_same(Path(again.json["results_dir"]), alone)


def test_a_machine_that_leaves_somebody_else_s_cluster(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    script, results = tmp_path / "nodes.py", tmp_path / "results"
    script.write_text(A_NODE_LEAVES)
    command = [sys.executable, "-m", "bench", *RUN, *WORKERS, "--results", str(results)]
    done = subprocess.run(
        [sys.executable, script, results, *command],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert " ended: " in done.stderr
    assert_same(Path(json.loads(done.stdout)["results_dir"]), alone)
