"""Seconds of CPU time that listing and reporting many stored runs takes.

    python benchmarks/many_runs.py [RUNS] [SAMPLES] [COMMAND]

The runs are of one dataset, written by the store into a temporary folder, with accuracies so close
that the leaderboard must pair them image by image. The goal at 300 runs is 2 s for the
leaderboard and 10 s for a report without pictures, and no more than in proportion to the runs; at
1,000 runs 3 s for the leaderboard:

    python benchmarks/many_runs.py 1000 360 leaderboard
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.runs import store


def write_runs(results: Path, runs: int, samples: int) -> None:
    """Store runs that are right on a random 80 % of ten classes' images."""
    labels = [i % 10 for i in range(samples)]
    for seed in range(runs):
        right = np.random.default_rng(seed).random(samples) < 0.8
        said = [y if ok else (y + 1) % 10 for y, ok in zip(labels, right, strict=True)]
        store(results, labels, said, n_classes=10, seed=seed)


def measure(*arguments: object) -> None:
    """Call a command twice and print what the second call took.

    The first one compiles the modules, as the installation of a package does.
    """
    for call in range(2):
        started = time.perf_counter()
        command = [sys.executable, "-m", "bench", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, arguments
        wall, cpu = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
        if call:
            memory = usage.ru_maxrss / 1024
            print(f"{arguments[0]:12} {wall:5.2f} s, {cpu:5.2f} s CPU, {memory:6.0f} MB")


def main(runs: int = 300, samples: int = 360, only: str = "") -> None:
    """Make the runs and measure each command on them, and on half of them; or one command alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder, "compiled"))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for count in (runs // 2, runs):
            results = Path(folder, str(count))
            write_runs(results, count, samples)
            print(f"{count} runs of {samples:,} images")
            measure("leaderboard", "--results", results)
            if only == "leaderboard":
                continue
            measure("list", "runs", "--results", results)
            page = Path(folder, "page.html")
            measure("report", "--results", results, "--out", page, "--images", 0)
            print(f"page {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    given = [*sys.argv[1:], "", "", ""]
    main(int(given[0] or 300), int(given[1] or 360), given[2])
