"""Two nodes on one machine, the second with another loss under the same version number."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.command import PATIENCE
from helpers.places import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
TWO_NODES = """
import json, sys, warnings
from ray.cluster_utils import Cluster
from bench.running.execute import execute
from bench.running.prepare import prepare
from bench.running.settings import make_config
from bench_plugins.executors.driver import RayExecutor

other, settings = sys.argv[1], json.loads(sys.argv[2])
head = {"num_cpus": 1, "include_dashboard": False}
nodes = Cluster(initialize_head=True, head_node_args=head)
nodes.add_node(num_cpus=1, env_vars={"PYTHONPATH": other})
nodes.wait_for_nodes()
run = prepare(make_config({**settings, "ray_address": nodes.address}))

executor = RayExecutor("cpu", 2, nodes.address)

def opened(_):
    driver = executor.open(run)
    driver.wait_for_all()
    return driver

try:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finished = execute(run.task(opened))
    texts = [str(warning.message) for warning in caught]
    print(json.dumps([finished.summary.dataset.n_samples, texts]))
finally:
    executor.close()
    nodes.shutdown()
"""


def test_a_node_with_another_loss_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "bench", other / "bench")
    loss = other / "bench/inputs/estimand.py"
    loss.write_text(loss.read_text() + "\n# another loss\n")
    settings = {"dataset": "digits", "limit": 6, "params": {"draws": 4}, "batch_size": 16}
    settings |= {"executor": "ray", "workers": 2, "device": "cpu"}
    settings |= {"results": str(tmp_path / "results")}
    script = tmp_path / "two_nodes.py"
    script.write_text(TWO_NODES)
    # A folder with no other sources of the toolkit: Ray's workers import from the driver's, too.
    done = subprocess.run(
        [sys.executable, script, other, json.dumps(settings)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    images, texts = json.loads(done.stdout.splitlines()[-1])
    assert images == 6  # by the other node
    [refused] = [text for text in texts if "are not the driver's" in text]
    assert "the source files of diffusion-classifier-bench" in refused
    assert ", process " in refused and "The run continues without it." in refused
