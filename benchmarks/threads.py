"""What adapting the number of threads gains: a run with it and with a fixed number, in pairs.

    python benchmarks/threads.py [--pairs 5] [--images 30] [--draws 60] [--loops 0 2]

`bench run digits` is timed in a process of its own, once with as many threads as torch chooses
and the engine changes, once with that number in OMP_NUM_THREADS, which is then left alone.
The two follow each other in turns, first beside nothing, then beside two busy loops. CPU time has
the spinning of threads that wait for each other; the load says how quiet the machine was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Run so many busy loops beside."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds(threads: int | None, images: int, draws: int) -> tuple[float, float]:
    """Return the clock's and the CPU's seconds of a run; `threads`: None, they adapt."""
    chosen = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    others = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench", "run", "digits", "--strategy", "full"]
        command += ["--limit", str(images), "--set", f"draws={draws}", "--device", "cpu"]
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--results", folder],
            env={**others, **chosen},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.returncode
        return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--loops", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(
        f"| busy loops | load | s, {cores} threads | s, adapting | ratio | CPU s, {cores} threads |"
        " CPU s, adapting | ratio |\n|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for loops in options.loops:
        pairs = []
        with busy(loops):
            for number in range(options.pairs):
                kinds = (cores, None) if number % 2 else (None, cores)
                times = {kind: seconds(kind, options.images, options.draws) for kind in kinds}
                pairs.append((*times[cores], *times[None]))
            load = os.getloadavg()[0]
        wall = median(p[2] / p[0] for p in pairs), median(p[3] / p[1] for p in pairs)
        fixed, fixed_cpu, adapts, adapts_cpu = (
            median(column) for column in zip(*pairs, strict=True)
        )
        print(
            f"| {loops} | {load:.1f} | {fixed:.1f} | {adapts:.1f} | {wall[0]:.2f} |"
            f" {fixed_cpu:.1f} | {adapts_cpu:.1f} | {wall[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
