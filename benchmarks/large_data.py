"""What a large dataset costs: until its first image is scored, and through a whole run.

`python benchmarks/large_data.py --images 50000 200000` writes parquet files of tiny images of 1,000
classes. Each of these is a process of its own:

    first    prepares a run: converts and reads everything
    second   prepares it again: finds what was remembered
    whole    scores all images with `majority`, which costs nothing per image
    again    begins a run of another identity, and stops when scoring starts
    resumed  the whole run's command again, which finds it complete
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 1000  # written at a time
CLASSES = 1000
SIDE = 16  # pixels

PREPARE = """
import json, resource, sys, time
begin = time.perf_counter()
import bench.running.prepare, datasets, torch
imported, cpu = time.perf_counter(), time.process_time()
from bench.running.parts.settings import make_config

from bench.running.prepare import prepare
prepared = prepare(make_config({"dataset": sys.argv[1], "backbone": "random"}))
done = time.perf_counter()
first = next(iter(prepared.samples(prepared.sample_ids[-1:])))
found = time.perf_counter()
print(json.dumps({
    "import_s": round(imported - begin, 2),
    "prepare_s": round(done - imported, 2),
    "cpu_s": round(time.process_time() - cpu, 2),
    "first_image_s": round(found - done, 2),
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "images": len(prepared.sample_ids),
    "run_id": prepared.manifest.run_id,
}))
"""

# Seconds are those from the imports on: to the start of scoring, and to the end; by the clock, and
# of the processor, which other programs may share.
RUN = """
import json, resource, sys, time
begin = time.perf_counter()
import bench.running.lifecycle, datasets, torch
from bench import hookimpl
from bench.discovery.loading import load_plugins
from bench.running.lifecycle import run
from bench.running.parts.settings import make_config
imported, cpu = time.perf_counter(), time.process_time()
class Watch:
    started = until = None
    @hookimpl
    def run_started(self):
        Watch.started, Watch.until = time.perf_counter(), time.process_time()
    @hookimpl
    def sample_scored(self):
        if sys.argv[3] == "again":
            raise KeyboardInterrupt
watch = Watch()
load_plugins().manager.register(watch)
said = {"dataset": sys.argv[1], "backbone": "majority", "results": sys.argv[2]}
images = 0
try:
    finished = run(make_config({**said, "seed": int(sys.argv[3] == "again")}))
    images = finished.summary.dataset.n_samples
except KeyboardInterrupt:
    pass
end = time.perf_counter()
print(json.dumps({
    "import_s": round(imported - begin, 2),
    "scoring_starts_s": Watch.started and round(Watch.started - imported, 2),
    "scoring_starts_cpu_s": Watch.until and round(Watch.until - cpu, 2),
    "run_s": round(end - imported, 1),
    "run_cpu_s": round(time.process_time() - cpu, 1),
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "images": images,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--keep", help="A folder for the files; they are used again.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for images in arguments.images:
            data = folder / f"large-{images}"
            data.mkdir(exist_ok=True)
            for name, count, seed in (("test", images, 0), ("train", CLASSES, 1)):
                if not (data / f"{name}.parquet").is_file():
                    write(data / f"{name}.parquet", count, seed)
            environment = {**os.environ, "BENCH_CACHE_DIR": str(Path(temporary, f"{images}"))}
            for phase in ("first", "second"):
                tell(phase, measure(PREPARE, [str(data)], environment))
            results = str(Path(temporary, f"results-{images}"))
            for phase in ("whole", "again", "resumed"):
                tell(phase, measure(RUN, [str(data), results, phase], environment))


def tell(phase: str, measured: dict[str, Any]) -> None:
    """Print what a process took."""
    print(json.dumps({"phase": phase, **measured}), flush=True)


def write(file: Path, images: int, seed: int = 0) -> None:
    """Write distinct tiny pictures, their labels and no ids, a thousand rows per group."""
    random = np.random.default_rng(seed)
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", "string")]
    )
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, images, ROWS):
            count = min(ROWS, images - start)
            pixels = random.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
            rows = [
                {
                    "image": {"bytes": _png(pixels[i]), "path": None},
                    "label": f"thing {(start + i) % CLASSES}",
                }
                for i in range(count)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _png(pixels: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def measure(script: str, given: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a script in a process of its own, and return its seconds and its largest memory."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, *given],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**measured, "process_s": round(time.perf_counter() - begin, 2)}


if __name__ == "__main__":
    main()
