"""Ray against this process: overhead, speed-up, killed workers, and a cluster of two nodes.

    python benchmarks/executors.py overhead     # one worker against none: wanted at most 5 %
    python benchmarks/executors.py speedup      # two workers against one, a thread each: wanted 1.8
    python benchmarks/executors.py kills        # 30 workers killed: the answers stay
    python benchmarks/executors.py cluster      # two nodes of Ray on 127.0.0.1, one of which goes
    python benchmarks/executors.py interrupt    # seconds from Ctrl-C to the end: wanted at most 10

Each takes some four minutes on two idle cores. Digits of the training split are scored by race,
with the included backbone and 64 cells per batch, and stored; times are those of scoring alone,
once all workers have loaded. `overhead` and `speedup` need a machine that does nothing else: they
take both kinds by turns and compare medians.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import numpy as np

from bench.errors import BenchWarning
from bench.running.execute import execute
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_records
from bench.store.formats.journal import JOURNAL
from bench_plugins.executors.driver import Driver, RayExecutor

MOST = 1437  # images of the split
SETTINGS = {"dataset": "digits", "split": "train", "batch_size": 64, "device": "cpu", "fresh": True}


def score(
    results: str,
    images: int,
    draws: int,
    workers: int | None,
    address: str | None = None,
    watch: Callable[[Driver], None] = lambda executor: None,
) -> tuple[Path, float]:
    """Score once; return the run's folder and the seconds of scoring."""
    given = {"limit": images, "params": {"draws": draws}, "results": results}
    if workers is not None:
        given |= {"executor": "ray", "workers": workers, "ray_address": address}
    run = prepare(make_config({**SETTINGS, **given}))
    if workers is None:
        finished = execute(run.task())
    else:

        def opened(_: object) -> Driver:
            driver = executor.open(run)
            driver.wait_for_all()
            watch(driver)
            return driver

        with closing(RayExecutor("cpu", workers, address)) as executor:
            finished = execute(run.task(opened))
    return finished.folder, finished.summary.cost.seconds or 0.0


def apart(arguments: argparse.Namespace, images: int, workers: int | None, threads: int) -> float:
    """Score in a process of its own; return the seconds of scoring."""
    command = [sys.executable, __file__, "one", "--images", str(images)]
    command += ["--draws", str(arguments.draws)]
    command += [] if workers is None else ["--workers", str(workers)]
    variables = {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"}
    done = subprocess.run(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def images_for(arguments: argparse.Namespace, threads: int) -> int:
    """Return how many images take so many seconds in one process."""
    if arguments.images:
        return int(arguments.images)
    trial, seconds = 100, float(arguments.seconds)
    rate = trial / apart(arguments, trial, None, threads)
    return max(20, min(MOST, round(rate * seconds)))


def by_turns(
    arguments: argparse.Namespace, kinds: Sequence[tuple[str, int | None]], threads: int
) -> None:
    """Time two kinds by turns and print the medians and their ratio."""
    images = images_for(arguments, threads)
    found: dict[str, list[float]] = {name: [] for name, _ in kinds}
    for _ in range(arguments.repeats):
        for name, workers in kinds:
            found[name].append(apart(arguments, images, workers, threads))
    first, second = (statistics.median(found[name]) for name, _ in kinds)
    pairs = [b / a for a, b in zip(*found.values(), strict=True)]
    print(
        "| | images | threads each | seconds (all) | median |\n|---|---|---|---|---|",
        *(
            f"| {name} | {images:,} | {threads} | {', '.join(f'{s:.1f}' for s in found[name])} |"
            f" {statistics.median(found[name]):.1f} |"
            for name, _ in kinds
        ),
        f"\n{kinds[1][0]} takes {second / first:.3f} of the time of {kinds[0][0]}"
        f" ({first / second:.2f} times as fast); the median of the pairs' ratios is"
        f" {statistics.median(pairs):.3f}.",
        sep="\n",
    )


def compare(folder: Path, wanted: Path) -> str:
    """Check that two runs have the same answers, each image once; return what was compared."""
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    ids = [line["sample_id"] for line in lines]
    found, other = read_records(folder), read_records(wanted)
    assert len(ids) == len(set(ids)) == len(other), "an image is there twice, or missing"
    assert found.keys() == other.keys()
    same = sum(found[i]["prediction"] == other[i]["prediction"] for i in other)
    cost = sum(found[i]["evaluations"] == other[i]["evaluations"] for i in other)
    scores = np.array([[found[i]["score"], other[i]["score"]] for i in other], float)
    worst = float(np.abs(scores[:, 0] / scores[:, 1] - 1).max())
    assert all(found[i]["error"] is None for i in other)
    return (
        f"{len(other):,} images, each once; {same:,} same answers, {cost:,} same numbers of"
        f" evaluations, scores within {worst:.1e}"
    )


class Killer(Thread):
    """Kills a worker at random moments, one that scores four times in five, until it is told."""

    def __init__(self, most: int, longest: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.most, self.longest = most, longest
        self.chance, self.over, self.kills = random.Random(seed), Event(), 0

    def watch(self, executor: Driver) -> None:
        """Begin with the workers of an executor."""
        self.executor = executor
        self.start()

    def run(self) -> None:
        """Kill."""
        while self.kills < self.most and not self.over.wait(self.chance.uniform(0.1, self.longest)):
            workers = [one for one in list(self.executor.workers.values()) if one.place]
            scoring = [one for one in workers if one.blocks]
            chosen = scoring if scoring and self.chance.random() < 0.8 else workers
            if not chosen or not scoring:
                continue
            place = self.chance.choice(chosen).place
            assert place is not None
            try:
                os.kill(place.process, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.kills += 1
            print(f"{self.kills} killed", file=sys.stderr, flush=True)


def kills(arguments: argparse.Namespace) -> None:
    images, draws = arguments.images or 300, arguments.draws
    print("| run | workers killed | images lost, then scored again | compared |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        wanted, _ = score(f"{folder}/alone", images, draws, None)
        total = run = 0
        while total < arguments.kills:
            run += 1
            killer = Killer(arguments.kills - total, arguments.longest, run)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", BenchWarning)
                made, _ = score(f"{folder}/ray", images, draws, 2, watch=killer.watch)
            killer.over.set()
            total += killer.kills
            texts = " ".join(str(one.message) for one in said)
            lost = sum(map(int, re.findall(r"(\d+) of its images will be scored again", texts)))
            print(f"| {run} | {killer.kills} | {lost} | {compare(made, wanted)} |", flush=True)
    print(f"\n{total} workers were killed.")


def cluster(arguments: argparse.Namespace) -> None:
    from ray.cluster_utils import Cluster

    images, draws = arguments.images or 150, arguments.draws
    with tempfile.TemporaryDirectory() as folder:
        wanted, alone = score(f"{folder}/alone", images, draws, None)
        nodes = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False},
        )
        other = nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        try:
            both, seconds = score(f"{folder}/both", images, draws, 2, nodes.address)
            print(f"local: {alone:.1f} s; two nodes, a worker each: {seconds:.1f} s")
            print(f"Two nodes: {compare(both, wanted)}")

            def goes(executor: Driver) -> None:
                def leave() -> None:
                    time.sleep(max(0.5, seconds / 4))
                    nodes.remove_node(other, allow_graceful=False)

                Thread(target=leave, daemon=True).start()

            one, _ = score(f"{folder}/one", images, draws, 2, nodes.address, goes)
            print(f"Two nodes, one of which goes: {compare(one, wanted)}")
        finally:
            nodes.shutdown()


def interrupt(arguments: argparse.Namespace) -> None:
    print("| decided when interrupted | seconds to the end | exit code | kept |\n|---|---|---|---|")
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "bench", "run", "digits", "--split", "train"]
            command += ["--executor", "ray", "--device", "cpu", "--results", folder]
            running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while running.poll() is None and not any(
                path.stat().st_size for path in Path(folder).rglob(JOURNAL)
            ):
                time.sleep(0.1)
            time.sleep(3)
            [journal] = Path(folder).rglob(JOURNAL)
            before, start = len(journal.read_text().splitlines()), time.perf_counter()
            running.send_signal(signal.SIGINT)
            code = running.wait()
            seconds, after = time.perf_counter() - start, len(journal.read_text().splitlines())
            print(f"| {before} | {seconds:.1f} | {code} | {after} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("overhead", "speedup", "kills", "cluster", "interrupt", "one"):
        part = parts.add_parser(name)
        part.add_argument("--images", type=int, help="default: as many as take --seconds")
        part.add_argument("--draws", type=int, default=250)
        part.add_argument("--seconds", type=float, default=55.0 if name == "overhead" else 40.0)
        part.add_argument("--repeats", type=int, default=2)
        part.add_argument("--workers", type=int)
        part.add_argument("--threads", type=int, help="of overhead; default: as many as cores")
        part.add_argument("--kills", type=int, default=30)
        part.add_argument("--longest", type=float, default=4.0, help="seconds between two kills")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if arguments.part == "overhead":
        threads = arguments.threads or cores
        by_turns(arguments, [("local", None), ("one worker of Ray", 1)], threads)
    elif arguments.part == "speedup":
        by_turns(arguments, [("one worker", 1), ("two workers", 2)], 1)
    elif arguments.part == "kills":
        kills(arguments)
    elif arguments.part == "cluster":
        cluster(arguments)
    elif arguments.part == "interrupt":
        interrupt(arguments)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _, seconds = score(folder, arguments.images, arguments.draws, arguments.workers)
        print(json.dumps(seconds))


if __name__ == "__main__":
    main()
