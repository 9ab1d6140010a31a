"""What a strategy's own thinking costs, at 1,000 prompts and 1,000 draws.

    python benchmarks/strategies.py

The model it steers is assumed to be Stable Diffusion 2 at 512 pixels on an H100, at 400
evaluations per second: 804 GFLOP per evaluation, so 320 TFLOP/s, more than anybody has reported.
The goal is less than 1 % of the model's time, 25 µs per evaluation.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Problem
from bench.discovery.loading import load_plugins
from bench.inputs.draws import timestep_grid
from bench.recordings.replay import decide
from bench.running.decider import make_decider

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "uniform": {"samples": 50},
    "adaptive": {"schedule": "imagenet"},
    "halving": {"budget": 50},
    "paired-ttest": {},
    "race": {},
    "race bound=betting": {"bound": "betting", "delta": 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--speed", type=float, default=400.0, help="evaluations per second assumed")
    arguments = parser.parse_args()
    shape = arguments.prompts, arguments.draws
    problem = Problem(np.arange(shape[0]), timestep_grid(shape[1], 1000), np.ones(shape[1]))
    rng = np.random.default_rng(0)
    # Levels and noise such that races last: the best hundred are within one per cent.
    level = 0.3 + 0.1 * np.sqrt(rng.random((shape[0], 1)))
    errors = (level + 0.02 * rng.standard_normal(shape)).astype(np.float32)
    print(f"{shape[0]} prompts, {shape[1]} draws; model at {arguments.speed:g} evaluations/s")
    for label, params in SETTINGS.items():
        spec = load_plugins().strategies.get(label.split()[0])
        given = {"draws": shape[1], **params}
        strategy = make_decider(spec, given).strategy
        started = time.process_time()
        decided = decide(Sample("", 0, {}), errors, strategy, problem)
        seconds = time.process_time() - started
        each = seconds / decided.evaluations
        print(
            f"{label:20s} {decided.evaluations:9,d} evaluations, {1e3 * seconds:8.1f} ms CPU,"
            f" {1e6 * each:7.3f} µs an evaluation, {100 * each * arguments.speed:7.4f} % of the"
            " model's time"
        )


if __name__ == "__main__":
    main()
