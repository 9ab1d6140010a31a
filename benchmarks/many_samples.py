"""200,000 samples: seconds, CPU seconds and memory of listing, comparing, showing and viewing runs.

    python benchmarks/many_samples.py [SAMPLES] [CLASSES] [RUNS]

Writes synthetic runs in the real format (ten classes in each line's `top`) into a temporary
folder, with accuracies so close that the leaderboard must pair them sample by sample, and calls
the commands as a user does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.runs import a_manifest

from bench.stats.metrics.summarise import summarize
from bench.store.formats.decisions import read_decisions
from bench.store.formats.fields import to_json


def write_run(
    results: Path,
    seed: int,
    samples: int,
    classes: int,
    predictions: Sequence[int] | None = None,
    **changes: Any,
) -> Path:
    """Write a complete run quickly: the same bytes as the store writes, without its flushes.

    Without `predictions`, 70 % are right. `changes` are those of the manifest.
    """
    ids = [f"image-{i:07d}" for i in range(samples)]
    manifest = a_manifest(ids, n_classes=classes, seed=seed, **changes)
    path = results / manifest.run_id
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(to_json(manifest.plain()))
    rng = np.random.default_rng(seed)
    right = rng.random(samples) < 0.7
    with (path / "samples.jsonl").open("w") as file:
        for i, sample_id in enumerate(ids):
            label = i % classes
            made_up = label if right[i] else (label + 1) % classes
            decided = made_up if predictions is None else predictions[i]
            top = [[(decided + j) % classes, 0.0679379274 + j / 1000, 250] for j in range(10)]
            record = {
                "sample_id": sample_id,
                "label": label,
                "prediction": decided,
                "score": 0.0679379274,
                "margin": 0.001,
                "margin_stderr": 0.000546263,
                "confidence": 0.966,
                "evaluations": 2500,
                "top": top,
                "seconds": 0.0123,
                "error": None,
            }
            file.write(json.dumps(record) + "\n")
    stored = read_decisions(path, manifest, top=True)
    (path / "summary.json").write_text(to_json(summarize(manifest, stored, 1.0, None).plain()))
    return path


def measure(*arguments: str) -> None:
    """Call a command and print what it took."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "bench", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, arguments
    wall, cpu = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    print(f"{arguments[0]:12} {wall:5.2f} s, {cpu:5.2f} s CPU, {usage.ru_maxrss / 1024:6.0f} MB")


def measure_view(results: Path, a: str, b: str) -> None:
    """Start `bench view`, ask for pages twice each, and print what they took."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "bench", "view", "--results", str(results), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
    print(f"{'view':12} {time.perf_counter() - started:5.2f} s until it serves")
    far = f"run?run={a}&show=all&sort=order&page=3000"
    for page in ("", f"run?run={a}", far, f"compare?a={a}&b={b}"):
        for time_of in ("first", "again"):
            asked = time.perf_counter()
            with urlopen(url + page) as answer:
                size = len(answer.read())
            took = time.perf_counter() - asked
            name = page.replace(a, "A").replace(b, "B") or "all runs"
            print(f"  {name:45} {time_of} {took:5.2f} s, {size / 1e3:6.0f} kB")
    process.send_signal(signal.SIGINT)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{'view':12} {cpu:5.2f} s CPU in all, {usage.ru_maxrss / 1024:6.0f} MB")


def main(samples: int = 200_000, classes: int = 1_000, runs: int = 3) -> None:
    """Make the runs and measure each command."""
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's peak memory begins with its parent's.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            work = [pool.submit(write_run, Path(folder), s, samples, classes) for s in range(runs)]
            paths = [made.result() for made in work]
        size = (paths[0] / "samples.jsonl").stat().st_size
        print(f"{runs} runs of {samples:,} samples × {classes:,} classes, {size / 1e6:.0f} MB each")
        measure("leaderboard", "--results", folder)
        measure("compare", str(paths[0]), str(paths[1]))
        measure("show", str(paths[0]), "--statistics")
        measure_view(Path(folder), paths[0].name, paths[1].name)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
