"""What a large dataset costs before its first image is scored: seconds and memory.

`python benchmarks/large_data.py --images 50000 200000` writes parquet files of tiny images of 1,000
classes and prepares a run of each twice, in processes of their own: the first one converts and
reads everything, the second one finds what was remembered.
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
imported = time.perf_counter()
from bench.running.settings import make_config
from bench.running.prepare import prepare
prepared = prepare(make_config({"dataset": sys.argv[1], "backbone": "random"}))
done = time.perf_counter()
first = next(iter(prepared.samples(prepared.sample_ids[-1:])))
found = time.perf_counter()
print(json.dumps({
    "import_s": round(imported - begin, 2),
    "prepare_s": round(done - imported, 2),
    "first_image_s": round(found - done, 2),
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "images": len(prepared.sample_ids),
    "run_id": prepared.manifest.run_id,
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
            file = folder / f"large-{images}.parquet"
            if not file.is_file():
                write(file, images)
            environment = {**os.environ, "BENCH_CACHE_DIR": str(Path(temporary, f"{images}"))}
            for phase in ("first", "second"):
                print(json.dumps({"phase": phase, **measure(file, environment)}), flush=True)


def write(file: Path, images: int) -> None:
    """Write distinct tiny pictures, their labels and no ids, a thousand rows per group."""
    random = np.random.default_rng(0)
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


def measure(file: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Prepare a run in a process of its own, and return its seconds and its largest memory."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(file)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**measured, "process_s": round(time.perf_counter() - begin, 2)}


if __name__ == "__main__":
    main()
