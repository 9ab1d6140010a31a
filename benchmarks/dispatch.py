"""How evenly images are given to many workers, and how many decisions the driver takes.

    python benchmarks/dispatch.py simulate [--images 1280000] [--workers 8 64 1000] [--run RUN]
    python benchmarks/dispatch.py driver [--images 50000]

`simulate` is a simulation of the dispatch that the Ray executor uses. The cost of an image is
drawn, with replacement, from what the images of RUN cost in evaluation equivalents (published UC
Merced by default), and from a log-normal law with a coefficient of variation of 1. A worker scores
one image after the other, at a speed of its own (they differ by 5 %), has its next block before
the last one is done, and waits for 5 ms whenever it has nothing. An image takes a second on
the average. Efficiency is the share of all workers' time in which they score, from the first image
to the last one decided. The tail begins when a worker finds nothing left. Static shards have the
same images and workers.

`driver` is what the driver does per decision besides waiting: decisions as workers send them are
unpickled, entered, and appended to the store, each handed to the operating system.
"""

from __future__ import annotations

import argparse
import heapq
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Outcome
from bench.store.folder import read_manifest, read_records
from bench.store.formats.journal import make_record
from bench.store.writing import RunFolder
from bench_plugins.executors.dispatch import Dispatch, DispatchRules
from bench_plugins.executors.driver import IN_FLIGHT

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
RUN = PUBLISHED / "ucmerced-tiny-landuse-screen-race-a00cf772"
ROUND_TRIP = 0.005  # seconds
SPREAD = 0.05  # standard deviation of the speeds of equal machines


def costs_of(name: str, run: Path, images: int) -> NDArray[np.float64]:
    """Return seconds of each image, one on the average."""
    random = np.random.default_rng(0)
    if name == "recorded":
        records = read_records(run).values()
        seen = np.array([float(record["equivalents"]) for record in records])
        costs = random.choice(seen, images)
    else:
        costs = random.lognormal(-np.log(2) / 2, np.sqrt(np.log(2)), images)
    return np.asarray(costs / costs.mean())


def dynamic(costs: NDArray[np.float64], speeds: NDArray[np.float64]) -> tuple[float, float]:
    """Return when the last image is decided, and when the first worker had nothing to do.

    A worker has two blocks at a time and answers once it has begun with the last image of one.
    """
    names = [str(number) for number in range(len(speeds))]
    dispatch = Dispatch(map(str, range(len(costs))), names, DispatchRules.of(len(names)))
    queues: dict[str, list[tuple[float, str]]] = {name: [] for name in names}  # (decided at, id)
    blocks = dict.fromkeys(names, 0)
    events = [(0.0, name) for name in names]
    end, first_idle = 0.0, 0.0
    while events:
        now, name = heapq.heappop(events)
        queue, blocks[name] = queues[name], max(0, blocks[name] - 1)
        done = [sample for at, sample in queue if at <= now]
        del queue[: len(done)]
        if done:
            dispatch.decided(name, done, now)
            end = max(end, now)
        while blocks[name] < IN_FLIGHT and (ids := dispatch.give(name, now)):
            blocks[name] += 1
            for sample in ids:
                begins = queue[-1][0] if queue else now + ROUND_TRIP
                queue.append((begins + costs[int(sample)] / speeds[int(name)], sample))
            heapq.heappush(events, (max(begins, now + ROUND_TRIP), name))
        if not blocks[name] and queue:
            blocks[name] = 1
            heapq.heappush(events, (queue[0][0], name))
        elif not queue and dispatch.left:
            first_idle = first_idle or now
    assert dispatch.left == 0, dispatch.left
    return end, first_idle or end


def static(costs: NDArray[np.float64], speeds: NDArray[np.float64]) -> float:
    """Return when the last of so many shards is done."""
    n = len(speeds)
    return max(float(costs[i::n].sum() / speeds[i]) for i in range(n))


def simulate(arguments: argparse.Namespace) -> None:
    print(
        "| costs | CV | images | workers | efficiency | tail | static shards |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in ("recorded", "log-normal"):
        costs = costs_of(name, arguments.run, arguments.images)
        for workers in arguments.workers:
            speeds = np.random.default_rng(1).normal(1, SPREAD, workers).clip(0.7)
            end, first_idle = dynamic(costs, speeds)
            best = costs.sum() / speeds.sum()
            print(
                f"| {name} | {costs.std():.2f} | {len(costs):,} | {workers:,} | {best / end:.1%} |"
                f" {1 - first_idle / end:.1%} | {best / static(costs, speeds):.1%} |",
                flush=True,
            )


def a_decision(sample_id: str, classes: int) -> Decided:
    """Return a decision as a worker sends it."""
    random = np.random.default_rng(len(sample_id))
    scores = random.random(classes)
    outcome = Outcome(np.argsort(scores), scores, np.full(classes, 40), 0.03, 0.01, 0.98)
    return Decided(Sample(sample_id, 3, {}), outcome, evaluations=900, equivalents=900.0)


def driver(arguments: argparse.Namespace) -> None:
    manifest = read_manifest(RUN)
    print("| classes | images | decisions per second |\n|---|---|---|")
    for classes in (21, 1000):
        ids = [f"image-{number}" for number in range(arguments.images)]
        reports = [
            pickle.dumps([a_decision(name, classes) for name in ids[start : start + 50]])
            for start in range(0, len(ids), 50)
        ]
        asked = manifest.model_copy(update={"samples": ids})
        dispatch = Dispatch(ids, ["a"], DispatchRules(block_seconds=1e9))
        timesteps = np.zeros(0, np.int64)
        with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder, "r"), asked) as store:
            start = time.perf_counter()
            for report in reports:
                while dispatch.give("a", 0.0):
                    pass
                decided = pickle.loads(report)
                dispatch.decided("a", [one.sample.sample_id for one in decided], 1.0)
                for one in decided:
                    store.append(make_record(one, 0.1), None, timesteps)
            seconds = time.perf_counter() - start
            assert dispatch.left == 0
        print(f"| {classes:,} | {len(ids):,} | {len(ids) / seconds:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    simulated = parts.add_parser("simulate")
    simulated.add_argument("--images", type=int, default=1_280_000)
    simulated.add_argument("--workers", type=int, nargs="+", default=[8, 64, 1000])
    simulated.add_argument("--run", type=Path, default=RUN)
    timed = parts.add_parser("driver")
    timed.add_argument("--images", type=int, default=20_000)
    arguments = parser.parse_args()
    simulate(arguments) if arguments.part == "simulate" else driver(arguments)


if __name__ == "__main__":
    main()
