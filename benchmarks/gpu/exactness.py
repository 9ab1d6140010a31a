"""Parts that compare the device with the CPU: is what it computes right?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import families, released
from helpers.pipelines import save_pipeline

import bench
from bench.contracts.dataset import Sample
from bench.engine.batching import Batch
from bench.engine.denoiser import CheckedDenoiser, accelerate
from bench.engine.denoising import DenoisingEngine
from bench.engine.scoring import Evaluator, Scoring, SharedNoise, coefficients
from bench_plugins.backbones.pipeline import PipelineDenoiser
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.report import Row
from benchmarks.gpu.sweeps import DRAWS, Errors, engine_of, errors_of, full_sweep, pipeline
from benchmarks.timing import pictures

MOST = {"float32": 1e-3, "TF32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}  # of an error, relative
SIDES = {"sana": 32}  # of the small families' pictures; 16 of the others


def each_family(machine: Machine) -> Iterator[Row]:
    """Compare the cells of each family's small pipeline on the device with those on the CPU."""
    for kind in ("sd15", "sd21", *families.KINDS):
        side = SIDES.get(kind, 16)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, kind)
            (families.save if kind in families.KINDS else _saved)(kind, folder)
            yield from _compared(machine, kind, folder, pictures(side, 2), resolution=side)


def each_class(machine: Machine) -> Iterator[Row]:
    """Compare predictions of each other declared class's small pipeline with those on the CPU."""
    for kind in released.RELEASED:
        exact = _errors_of_class(kind, torch.device("cpu"), "float32")
        for dtype in dtypes(machine):
            tf32 = dtype == "TF32"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            row: Row = {"pipeline": kind, "dtype": dtype}
            try:
                found = _errors_of_class(kind, machine.device, dtype)
            except Exception as error:  # whatever a class raises on a device: the next is tried
                yield {**row, "said": f"{type(error).__name__}: {error}"[:200], "ok": False}
                continue
            yield {**row, **difference(found, exact, dtype)}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@torch.no_grad()
def _errors_of_class(kind: str, device: torch.device, dtype: str) -> Errors:
    """Return errors of a made-up latent, float32 [1, prompts, draws], laid out as in a run."""
    own = torch.float32 if dtype == "TF32" else getattr(torch, dtype)
    pipe = released.made(kind, own).to(device)
    denoiser = PipelineDenoiser(pipe, resolution=released.SIDES.get(kind, 16))
    checked = CheckedDenoiser(denoiser, kind)
    accelerate(checked, "auto", "auto", False)
    levels, texts = denoiser.levels, ["a cat", "a fir tree (tall)", "a long road to a small town"]
    rows = np.linspace(len(levels) // 8, len(levels) - 1, DRAWS).astype(np.int64)
    prompt, draw = (torch.from_numpy(x.ravel()).to(device) for x in np.indices((3, DRAWS)))
    draws = coefficients(levels, rows, "prediction", device)
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(1, *denoiser.latent_shape, generator=generator) for _ in range(2))
    scoring = Scoring(draws, SharedNoise(eps.repeat(DRAWS, 1, 1, 1).numpy(), device), "l2")
    evaluator = Evaluator(checked, denoiser.encode_prompts(texts), scoring)
    cells = np.stack([prompt.cpu().numpy(), draw.cpu().numpy(), np.zeros(len(draw), np.int64)])
    errors = evaluator.errors(Batch(cells, x_0.to(device), [""]))
    return np.asarray(errors.cpu().numpy().reshape(1, 3, DRAWS))


def _saved(kind: str, folder: Path) -> Path:
    return save_pipeline(folder, kind)


def real_cells(machine: Machine) -> Iterator[Row]:
    """Compare a few cells of Stable Diffusion 2.1-base on the device with those on the CPU."""
    folder = pipeline(machine)
    side = 16 if machine.small else 512
    yield from _compared(machine, "sd21", folder, pictures(side, 1))


def _compared(
    machine: Machine, name: str, folder: Path, samples: list[Sample], **more: Any
) -> Iterator[Row]:
    run = full_sweep(folder, "cpu", "float32", **more)
    exact = errors_of(engine_of(run), run, samples)
    for dtype in dtypes(machine):
        run = full_sweep(folder, str(machine.device), dtype, **more)
        found = errors_of(engine_of(run), run, samples)
        yield {"pipeline": name, **difference(found, exact, dtype)}


def difference(found: Errors, exact: Errors, dtype: str) -> Row:
    """Return how far errors are from those in float32 on the CPU.

    What decides is the difference between two prompts on one draw; its error should be small
    against its spread.
    """
    relative = float(np.abs(found / exact - 1).max())
    pairs, pairs_exact = (e[:, 1:].astype(np.float64) - e[:, :1] for e in (found, exact))
    return {
        "dtype": dtype,
        "largest_relative_difference": relative,
        "error_of_paired_differences_over_their_deviation": float(
            np.sqrt(((pairs - pairs_exact) ** 2).mean()) / pairs_exact.std()
        ),
        "same_decisions": bool(
            (found.mean(axis=2).argmin(1) == exact.mean(axis=2).argmin(1)).all()
        ),
        "ok": relative <= MOST[dtype],
    }


def dtypes(machine: Machine) -> list[str]:
    """Return the dtypes that are compared with float32 on the CPU."""
    if machine.device.type == "cuda":
        return ["float32", "TF32", "bfloat16", "float16"]
    return ["float32", "bfloat16"]


def digits(machine: Machine) -> Iterator[Row]:
    """Run digits on the CPU and on the device: the same decisions, for as many evaluations?"""
    device, exact = str(machine.device), None
    for where, dtype in (("cpu", "float32"), (device, "float32"), (device, "bfloat16")):
        found = bench.run(
            "digits",
            device=where,
            dtype=dtype,
            limit=6 if machine.small else None,
            results=str(machine.folder / f"digits-{where.replace(':', '-')}"),
            fresh=True,
        )
        guesses = found.samples["prediction"].to_numpy()
        exact = guesses if exact is None else exact
        same = float((guesses == exact).mean())
        yield {
            "device": where,
            "dtype": dtype,
            "images": len(guesses),
            "accuracy": found["metrics"]["accuracy"],
            "evaluations_per_image": found["cost"]["evaluations_per_image"],
            "seconds": found["cost"]["seconds"],
            "decisions_as_on_the_cpu": same,
            "ok": same == 1 or dtype != "float32",
        }


def out_of_memory(machine: Machine) -> Iterator[Row]:
    """Let memory end in the middle of a run: the same cells must come out of smaller batches."""
    folder, device = pipeline(machine), machine.device
    samples = pictures(16 if machine.small else 512, 8)
    run = full_sweep(folder, str(device), "float32", batch_size=2)
    engine = engine_of(run)
    machine.forget_memory()
    exact = errors_of(engine, run, samples[:1])
    largest, size = 8, 64
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = 1.5 * torch.cuda.max_memory_allocated() / total
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    else:
        _end_memory(engine, largest)
    engine.batch_size = size
    tried: list[int] = []
    engine.out_of_memory = tried.append
    found = errors_of(engine, run, samples)
    apart = float(np.abs(found[:1] / exact - 1).max())
    yield {
        "memory": "limited" if device.type == "cuda" else "made to end by the benchmark",
        "batch": size,
        "batch_at_the_end": engine.batch_size,
        "times_halved": len(tried),
        "images_decided": len(found),
        "largest_relative_difference": apart,
        "ok": bool(tried) and apart < 1e-4,
    }


def _end_memory(engine: DenoisingEngine, cells: int) -> None:
    """Let a CPU, whose memory does not end in an exception, refuse larger batches."""
    denoise = engine.backbone.denoise

    def limited(x_t: torch.Tensor, *others: Any) -> torch.Tensor:
        if len(x_t) > cells:
            raise torch.OutOfMemoryError(f"more than {cells} cells")
        return denoise(x_t, *others)

    engine.backbone.denoise = limited  # type: ignore[method-assign, assignment]
