"""Real workers of Ray, which take ten seconds of work each to start: these tests are slow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.command import PATIENCE, Finished, bench_process, python
from helpers.places import ROOT
from helpers.plugins import install
from helpers.workers import TWO_NODES, arguments, descendants

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]


def interrupt(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGINT)


def terminate(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGTERM)


def kill_the_dashboard_agent(running: subprocess.Popen[str]) -> None:
    [agent] = [pid for pid in descendants(running.pid) if b"DashboardAgent" in arguments(pid)]
    os.kill(agent, signal.SIGKILL)


def kill_the_control_store(running: subprocess.Popen[str]) -> None:
    [store] = [pid for pid in descendants(running.pid) if b"/gcs_server" in arguments(pid)[:300]]
    os.kill(store, signal.SIGKILL)


@pytest.mark.parametrize(
    ("happens", "code", "said"),
    [
        (interrupt, 130, "What was decided is kept; the same command resumes."),
        (terminate, 143, "What was decided is kept; the same command resumes."),
        (kill_the_dashboard_agent, 1, "Ray on this machine ended. The same command resumes."),
        (kill_the_control_store, 1, "control store does not answer. The same command resumes."),
    ],
)
def test_what_ends_a_run_keeps_what_was_decided(
    happens: Callable[[subprocess.Popen[str]], None], code: int, said: str, tmp_path: Path
) -> None:
    options = ["--executor", "ray", "--workers", "1", "--device", "cpu", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "bench", "run", "digits", "--split", "train", *options]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not any(path.stat().st_size for path in tmp_path.rglob("samples.jsonl")):
            assert running.poll() is None, "it ended by itself"
            time.sleep(0.2)
        happens(running)
        _, printed = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == code, printed
    assert said in printed and "SIGTERM received" not in printed
    [journal] = tmp_path.rglob("samples.jsonl")
    assert all(json.loads(line)["error"] is None for line in journal.read_text().splitlines())


def with_ray(code: str, *arguments: object) -> Finished:
    """Run code that starts Ray, which gives up after 30 s: on a busy machine it may be too slow."""
    for _ in range(5):
        done = python(code, *arguments)
        if "The current node timed out during startup" not in done.err:
            break
    return done


SIGNALLED = """
import os, signal, sys, time
import ray
from bench.__main__ import main

init = ray.init

def init_and_be_signalled(**options):
    init(**options)
    os.kill(os.getpid(), signal.SIGTERM)  # while Ray's own handler is in force

ray.init = init_and_be_signalled
sys.argv = ["bench", *sys.argv[1:]]
try:
    main()
finally:
    time.sleep(4)  # that handler aborts the process after three seconds
"""


def test_a_signal_while_ray_starts_ends_the_command_as_any_other(tmp_path: Path) -> None:
    options = ("--executor", "ray", "--device", "cpu", "--results", str(tmp_path))
    done = with_ray(SIGNALLED, "run", "digits", "--backbone", "majority", *options)
    assert done.code == 143, done.err
    assert "Terminated. What was decided is kept; the same command resumes." in done.err


PLUGIN = """
import os
from bench import hookimpl

@hookimpl
def register_datasets(register):
    register("pairs", target="counted_parts:Pairs", items=True)

@hookimpl
def register_backbones(register):
    register("counted", target="counted_parts:Counted", trained_on=None)
"""
PARTS = """
import os
from helpers.captions import Painter, two_images
from helpers.given import Given

class Pairs(Given):
    rows = two_images()

class Counted(Painter):
    def encode_prompts(self, texts):
        with open(os.environ["ENCODED"], "a") as file:
            file.write(os.environ["BENCH_CACHE_DIR"] + "\\n")
        return super().encode_prompts(texts)
"""


def test_two_machines_without_a_shared_cache_encode_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With items of two images and in shards, both at once."""
    site, encoded = tmp_path / "site", tmp_path / "encoded"
    site.mkdir()
    install(site, "counted", PLUGIN)
    (site / "counted_parts.py").write_text(PARTS)
    path = os.pathsep.join([str(site), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": path, "BENCH_LOAD_PLUGINS": "counted", "ENCODED": str(encoded)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings: dict[str, Any] = {"dataset": "pairs", "backbone": "counted", "strategy": "full"}
    settings |= {"params": {"draws": 8}, "batch_size": 16, "results": str(tmp_path / "ray")}
    settings |= {"executor": "ray", "workers": 2, "device": "cpu"}
    for shard in ("1/2", "2/2"):
        encoded.unlink(missing_ok=True)
        place = str(tmp_path / shard[0])
        caches = [{"BENCH_CACHE_DIR": f"{place}/cache-{n}"} for n in (1, 2)]
        done = with_ray(TWO_NODES, *map(json.dumps, (*caches, {**settings, "shard": shard})))
        assert done.code == 0, done.err
        assert len(encoded.read_text().splitlines()) == 1, encoded.read_text()
        kept = [list(Path(place, f"cache-{n}").rglob("*.safetensors")) for n in (1, 2)]
        assert [len(files) for files in kept] == [1, 1]
        assert kept[0][0].read_bytes() == kept[1][0].read_bytes()
    run_id = Path(json.loads(done.out.splitlines()[-1])[0]).parents[1].name
    merged = bench_process("results", "merge", run_id, "--results", tmp_path / "ray")
    assert merged.code == 0, merged.err
    options = ["pairs", "--backbone", "counted", "--strategy", "full", "--set", "draws=8"]
    alone = ["--results", str(tmp_path / "alone"), "--batch-size", "16", "--json"]
    wanted = bench_process("run", *options, *alone)
    assert wanted.code == 0, wanted.err
    assert wanted.json["run_id"] == run_id
    metrics = json.loads((tmp_path / "ray" / run_id / "summary.json").read_text())["metrics"]
    assert metrics == wanted.json["metrics"]


def test_a_node_with_another_loss_is_refused_by_name(tmp_path: Path) -> None:
    """Another source under the same version number, in a folder that has no other of ours."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "bench", other / "bench")
    loss = other / "bench/inputs/estimand.py"
    loss.write_text(loss.read_text() + "\n# another loss\n")
    settings = {"dataset": "digits", "limit": 6, "params": {"draws": 4}, "batch_size": 16}
    settings |= {"executor": "ray", "workers": 2, "device": "cpu"}
    settings |= {"results": str(tmp_path / "results")}
    script = tmp_path / "two_nodes.py"
    script.write_text(TWO_NODES)
    given = map(json.dumps, ({}, {"PYTHONPATH": str(other)}, settings))
    # A folder with no other sources of the toolkit: Ray's workers import from the driver's, too.
    done = subprocess.run(
        [sys.executable, script, *given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    _, images, texts = json.loads(done.stdout.splitlines()[-1])
    assert images == 6  # by the other node
    [refused] = [text for text in texts if "are not the driver's" in text]
    assert "the source files of diffusion-classifier-bench" in refused
    assert ", process " in refused and "The run continues without it." in refused
