"""A merge of many shards: seconds and peak memory.

    python benchmarks/merging.py [--images 1280000] [--shards 16] [--classes 1000]

Writes synthetic shards in the real format, ten classes in each line's `top`, into a temporary
folder, and merges them in a process of its own. 1.28 million images take 1.3 GB on disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.runs import a_manifest

from bench.store.documents import ShardPart
from bench.store.fields import to_json
from bench.store.folder import shard_folder

MERGE = """
import resource, sys, time
from bench.running.shards import merge
start = time.perf_counter()
merged = merge([sys.argv[1]], sys.argv[2])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{seconds:.1f} {peak:.0f} {merged.summary.dataset.n_samples}")
"""


def write_shard(results: Path, index: int, arguments: argparse.Namespace) -> str:
    """Write one shard, a line per image as the store writes it; return the run's id."""
    images, shards, classes = arguments.images, arguments.shards, arguments.classes
    places = list(range(index - 1, images, shards))
    samples = [f"image-{place:07d}" for place in places]
    part = ShardPart(index=index, count=shards, asked=images, places=places)
    manifest = a_manifest(samples, n_classes=classes, n_total=images, part=part.plain())
    path = shard_folder(results / manifest.run_id, index, shards)
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(to_json(manifest.plain()))
    random = np.random.default_rng(index)
    with (path / "samples.jsonl").open("w") as file:
        for place, name in zip(places, samples, strict=True):
            label = place % classes
            top = random.permutation(classes)[:10].tolist()
            if random.random() < 0.7 and label not in top:
                top[0] = label
            scores = np.sort(random.random(10)).round(6).tolist()
            record = {
                "sample_id": name,
                "label": label,
                "prediction": top[0],
                "score": scores[0],
                "margin": 0.0305829,
                "margin_stderr": 0.0147163,
                "confidence": 0.981153,
                "evaluations": 12_840,
                "linearisations": 0,
                "equivalents": 12840.0,
                "top": [[c, s, 40] for c, s in zip(top, scores, strict=True)],
                "seconds": 1.5312,
                "error": None,
            }
            file.write(json.dumps(record) + "\n")
    return manifest.run_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_280_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--classes", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(1, arguments.shards + 1):
            run = write_shard(Path(folder), index, arguments)
        code = [sys.executable, "-c", MERGE, run, folder]
        done = subprocess.run(code, capture_output=True, text=True, check=True)
    seconds, peak, merged = done.stdout.split()
    assert int(merged) == arguments.images
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("| images | shards | seconds | of these CPU | peak memory |\n|---|---|---|---|---|")
    print(
        f"| {arguments.images:,} | {arguments.shards} | {seconds} |"
        f" {cpu.ru_utime + cpu.ru_stime:.1f} | {peak} MB |"
    )


if __name__ == "__main__":
    main()
