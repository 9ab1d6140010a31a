"""A study of many methods, all pairs: processor time and peak memory of commands that show it.

    python benchmarks/many_methods.py [METHODS] [IMAGES] [CLASSES] [METRIC] [COMMAND]

Writes one synthetic run per method in the real format, and the study that has them, into a
temporary folder, and calls the commands as a user does. The methods are right on 60 to 80 % of the
images and name any other class otherwise, so that few pairs differ on the same images in the same
way. With a metric, only the study is shown, with the differences in this metric tested; with a
command, it alone is called.
"""

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.studies import store_study

from benchmarks.many_samples import measure, write_run


def write_method(results: Path, number: int, methods: int, images: int, classes: int) -> Path:
    """Write the run of a method."""
    rng = np.random.default_rng(number)
    labels = np.arange(images) % classes
    right = rng.random(images) < 0.6 + 0.2 * number / methods
    other = (labels + rng.integers(1, classes, images)) % classes
    predictions = np.where(right, labels, other).tolist()
    return write_run(results, number, images, classes, predictions, backbone=f"b{number:03d}")


def main(
    methods: int = 100, images: int = 1_000, classes: int = 20, metric: str = "", only: str = ""
) -> None:
    """Make the runs and the study, and measure each command."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        # In a process of its own: a child's peak memory begins with its parent's.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            sizes = methods, images, classes
            runs = [pool.submit(write_method, results, m, *sizes) for m in range(methods)]
            pool.submit(store_study, results, [run.result() for run in runs], "many").result()
        pairs = methods * (methods - 1) // 2
        print(f"{methods} methods, {pairs:,} pairs, {images:,} images, {classes} classes")
        where, show = ("--results", folder), ("study", "many", "--show")
        page = results / "page.html"
        commands = {
            "study": (*show, *where),
            "json": (*show, "--json", *where),
            "metric": (*show, "--metric", metric, *where),
            "margin": (*show, "--margin", "0.02", *where),
            "leaderboard": ("leaderboard", *where),
            "report": ("report", *where, "--out", str(page), "--images", "0"),
        }
        for name, command in commands.items():
            if name == (only or ("metric" if metric else name)) and (metric or name != "metric"):
                print(f"{name:8}", end=" ", flush=True)
                measure(*command)
        if page.exists():
            print(f"page {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:6])  # type: ignore[arg-type]  # numbers come first
