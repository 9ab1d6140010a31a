"""How long `bench report` takes, and how big its page is, on a large run.

    python benchmarks/report.py --images 200000 --classes 1000

The goal is less than 15 s and 5 MB at 200,000 images. The run is made up, and its data is not
there; with --errors the errors of so many images are recorded too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.runs import a_manifest

from bench.contracts.strategy import Evaluate
from bench.stats.metrics import summarize
from bench.store.cells import write_cells
from bench.store.decisions import as_decisions
from bench.store.fields import to_json
from bench.store.records import Record

DRAWS = 50


def make_run(run: Path, n_images: int, n_classes: int, n_errors: int) -> None:
    """Store a run whose images are decided at random, right in 60 of 100."""
    rng = np.random.default_rng(0)
    labels = rng.integers(n_classes, size=n_images)
    wrong = rng.random(n_images) < 0.4
    top = np.array([rng.permutation(n_classes)[:10] for _ in range(1000)])
    records: list[Record] = []
    for index, label in enumerate(labels.tolist()):
        ranked = [c for c in top[index % len(top)].tolist() if c != label][:9]
        ranked.insert(int(wrong[index]), label)
        scores = np.sort(rng.uniform(0.1, 0.2, len(ranked))).tolist()
        records.append(
            {
                "sample_id": f"image-{index:06d}",
                "label": label,
                "prediction": ranked[0],
                "score": scores[0],
                "margin": scores[1] - scores[0],
                "margin_stderr": 0.01,
                "confidence": float(rng.beta(3, 2)),
                "evaluations": 500,
                "linearisations": 0,
                "equivalents": 500.0,
                "top": [(c, s, DRAWS) for c, s in zip(ranked, scores, strict=True)],
                "seconds": 0.1,
                "error": None,
            }
        )
    ids = [record["sample_id"] for record in records]
    manifest = a_manifest(ids, n_classes, "large", "made-up", "uniform")
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(to_json(manifest.plain()))
    with (run / "samples.jsonl").open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    summary = summarize(manifest, as_decisions(records), 1.0, None)
    (run / "summary.json").write_text(to_json(summary.plain()))
    everything = Evaluate(np.arange(n_classes), np.arange(DRAWS))
    for record in records[:n_errors]:
        values = rng.random((n_classes, DRAWS), dtype=np.float32)
        cells = [(everything, values)]
        write_cells(run / "errors", record["sample_id"], cells, np.arange(DRAWS) * 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--errors", type=int, default=0, help="images whose errors are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results, page = Path(folder, "results"), Path(folder, "report.html")
        make_run(results / "large", arguments.images, arguments.classes, arguments.errors)
        journal = (results / "large" / "samples.jsonl").stat().st_size
        started = time.perf_counter()
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "bench",
            "report",
            "--results",
            results,
            "--out",
            page,
        ]
        subprocess.run(command, check=True, env={**os.environ, "BENCH_CACHE_DIR": folder})
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{arguments.images:,} images, {arguments.classes:,} classes,"
            f" samples.jsonl {journal / 1e6:.0f} MB: {wall:.1f} s"
            f" ({used.ru_utime + used.ru_stime:.1f} s CPU), peak memory"
            f" {used.ru_maxrss / 1e6:.1f} GB, page {page.stat().st_size / 1e6:.2f} MB"
        )


if __name__ == "__main__":
    main()
