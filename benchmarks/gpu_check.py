"""The whole check on a GPU, one command, one JSON report.

    python benchmarks/gpu_check.py --out gpu.json [--shapes sd15,sd21] [--compile]

On Stable Diffusion's published shapes with random weights (about 3 GB of disk each): errors of
float32, bfloat16 and float16 on the device against float32 on the CPU, cell by cell; evaluations a
second of the bare network and of the engine; utilisation of the measured peak; memory at the batch
size that `auto` takes. `--small --device cpu` runs all of it on small shapes in small batches.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.pipelines import save_pipeline
from helpers.published import save_published

from bench.contracts.specs import DatasetSpec
from bench.engine.denoising import DenoisingEngine
from bench.perf.measure import CLASSES, measure
from bench.perf.work import pictures
from bench.running.prepare import prepare
from bench.running.settings import RunConfig, make_config

DRAWS = 4
PUBLISHED = {"sd15": "sd15", "sd21": "sd21-768"}  # shape → the backbone that has it
MOST = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}  # relative difference of an error


def settings(folder: Path, device: str, dtype: str, **more: Any) -> RunConfig:
    """Return the settings of a full sweep on made-up pictures."""
    sweep = {"dataset": "-", "strategy": "full", "params": {"draws": DRAWS}}
    return make_config({**sweep, "backbone": str(folder), "device": device, "dtype": dtype, **more})


def table(config: RunConfig, images: int) -> np.ndarray:
    """Return the errors of the first images, float32 [images, prompts, draws]."""
    spec = DatasetSpec(name="pictures", target="bench.perf:pictures", classes=CLASSES[:3])
    run = prepare(config, spec, images=False)
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine)
    samples = pictures(engine.backbone.resolution, images)
    decided = {d.sample.sample_id: d for d in engine.score(samples, run.strategy)}
    rows = []
    for sample in samples:
        whole = np.full((3, DRAWS), np.nan, np.float32)
        for request, values in decided[sample.sample_id].cells:
            whole[np.ix_(request.prompts, request.draws)] = values
        rows.append(whole)
    return np.stack(rows)


def check(
    kind: str, device: str, small: bool, compiled: bool, images: int, seconds: float
) -> dict[str, Any]:
    """Return the report on one shape."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / kind
        if small:
            save_pipeline(folder, kind)
        else:
            save_published(PUBLISHED[kind], folder)
        exact = table(settings(folder, "cpu", "float32", batch_size=2), images)
        report: dict[str, Any] = {"correct": True}
        dtypes = MOST if device != "cpu" else {k: MOST[k] for k in ("float32", "bfloat16")}
        for dtype, most in dtypes.items():
            found = table(settings(folder, device, dtype, batch_size=2), images)
            difference = np.abs(found / exact - 1)
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            more = {"batch_size": 16, "compile": True} if compiled else {}
            config = settings(folder, device, dtype, **more)
            names = ("full", "adaptive", "race")
            report[dtype] = {
                "largest_relative_difference": float(difference.max()),
                "median_relative_difference": float(np.median(difference)),
                "same_decisions": bool(
                    (found.mean(axis=2).argmin(1) == exact.mean(axis=2).argmin(1)).all()
                ),
                **measure(config, names, sizes=(8, 16) if small else (), seconds=seconds),
            }
            report["correct"] = report["correct"] and bool(difference.max() <= most)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", default="sd15,sd21")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true", dest="compiled")
    parser.add_argument("--images", type=int, default=1, help="compared with float32 on the CPU")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing, each dtype")
    arguments = parser.parse_args()
    report = {
        kind: check(
            kind,
            arguments.device,
            arguments.small,
            arguments.compiled,
            arguments.images,
            arguments.seconds,
        )
        for kind in arguments.shapes.split(",")
    }
    arguments.out.write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return 0 if all(shape["correct"] for shape in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
