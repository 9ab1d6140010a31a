"""A full sweep of made-up pictures, which the parts of the check score."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from helpers.pipelines import save_pipeline
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.specs import DatasetSpec
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.running.content import Content
from bench.running.parts.settings import make_config
from bench.running.prepare import Preloaded, read_content
from benchmarks.gpu.machine import Machine
from benchmarks.published import save_published

CLASSES = ("cat", "fir tree", "dog")  # all of them known to the small DiT
DRAWS = 4
Errors = NDArray[np.float32]


def pipeline(machine: Machine) -> Path:
    """Return a pipeline of the shape of Stable Diffusion 2.1-base, or a small one, made once."""
    folder = machine.folder / ("small-sd21" if machine.small else "sd21")
    if not (folder / "scheduler" / "scheduler_config.json").exists():  # the last that is saved
        shutil.rmtree(folder, ignore_errors=True)
        (save_pipeline if machine.small else _published)(folder, "sd21")
    return folder


def _published(folder: Path, kind: str) -> Path:
    return save_published(kind, folder)


def full_sweep(folder: Path, device: str, dtype: str, **more: Any) -> Content:
    """Return a full sweep on made-up pictures."""
    if dtype == "TF32":
        more, dtype = {**more, "tf32": True}, "float32"
    settings = {"dataset": "-", "backbone": f"{folder}/", "device": device, "dtype": dtype}
    sweep = {"strategy": "full", "params": {"draws": DRAWS}, "batch_size": 2}
    spec = DatasetSpec(name="pictures", target="benchmarks.timing:pictures", classes=CLASSES)
    return read_content(make_config({**settings, **sweep, **more}), Preloaded(spec))


def engine_of(run: Content, network: CheckedDenoiser | None = None) -> DenoisingEngine:
    """Return the engine of a prepared run of a denoiser, by default a new one."""
    engine = run.kind.open_engine(run, network)
    assert isinstance(engine, DenoisingEngine)
    return engine


def errors_of(engine: DenoisingEngine, run: Content, samples: list[Sample]) -> Errors:
    """Return the errors of images, float32 [images, prompts, draws]."""
    decided = {d.sample.sample_id: d for d in engine.score(samples, run.names.strategy)}
    whole = np.full((len(samples), len(CLASSES), DRAWS), np.nan, np.float32)
    for position, sample in enumerate(samples):
        if error := decided[sample.sample_id].error:
            raise RuntimeError(error)
        for request, values in decided[sample.sample_id].cells:
            whole[position][np.ix_(request.prompts, request.draws)] = values
    return whole
