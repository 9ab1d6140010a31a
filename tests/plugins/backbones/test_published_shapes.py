"""Pipelines of the published shapes, random weights, scored as a user scores them.

`pytest -m slow -s tests/plugins/backbones/test_published_shapes.py` prints time and peak memory.
Each needs minutes, 2 to 15 GB of disk and up to 16 GiB of memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers.command import bench
from helpers.engines import errors_at, network_of
from helpers.pipelines import loaded
from helpers.published import save_published
from numpy.typing import NDArray
from oracle.question import Question
from oracle.reference import errors
from PIL import Image

from bench.engine.denoising import DenoisingEngine
from bench.engine.trees import leaves
from bench.inputs.prompts import from_template
from bench.running.kinds import checks
from bench.running.prepare import prepare
from bench.running.settings import RunConfig, make_config
from bench.store.cells import read_cells
from bench.store.folder import read_manifest

MOST = 16 * 2**30  # bytes in memory


def score(
    name: str, weights: Path, work: Path, draws: int, *options: object
) -> NDArray[np.float32]:
    """Score one picture against two prompts; print what it cost; return [prompts, draws]."""
    for label in ("beach", "harbor"):
        (work / "pictures" / label).mkdir(parents=True)
        picture().save(work / "pictures" / label / "1.png")
    started = time.perf_counter()
    done = bench(
        *("run", work / "pictures", "--backbone", name, "--weights", weights, "--limit", 1),
        *("--strategy", "full", "--set", f"draws={draws}", *options),
        *("--save-errors", "--results", work / "results", "--json"),
    )
    assert done.code == 0, done.err
    cost = done.json["cost"]
    print(
        f"\n{name}: {time.perf_counter() - started:.0f} s in all,"
        f" {cost['seconds'] / cost['evaluations']:.1f} s per evaluation (VAE included),"
        f" peak {cost['peak_memory_bytes'] / 2**30:.1f} GiB"
    )
    assert cost["evaluations"] == 2 * draws and cost["peak_memory_bytes"] < MOST
    run = Path(done.json["results_dir"])
    return read_cells(run / "errors", read_manifest(run).samples[0], (2, draws))


def picture() -> Image.Image:
    """Return a picture that is not square."""
    return Image.effect_mandelbrot((300, 256), (-2, -1.2, 0.8, 1.2), 90)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_two_prompts_on_two_levels(name: str, tmp_path: Path) -> None:
    folder = save_published(name, tmp_path / name)
    found = score(name, folder, tmp_path, 2, "--batch-size", 1, "--dtype", "bfloat16")
    print(found)
    assert np.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "resolution"), [("sd15", 512), ("sd21-768", 768)])
def test_errors_are_those_of_the_reference(name: str, resolution: int, tmp_path: Path) -> None:
    folder = save_published(name, tmp_path / name)
    found = score(name, folder, tmp_path, 1, "--batch-size", 2)
    prompts = (("a photo of a beach", 0), ("a photo of a harbor", 1))
    picture().save(tmp_path / "1.png")
    question = Question(prompts, resolution, draws=1)
    (wanted,), _ = errors(loaded(folder), {"1": tmp_path / "1.png"}, question)
    print(f"largest relative difference {np.abs(found / wanted - 1).max():.1e}")
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are random, so prompts differ little, and rounding counts for more than usual."""
    folder = save_published("sd15", tmp_path / "sd15")
    monkeypatch.setattr(checks, "_budget", lambda run, engine: 2 * 16 * 6.0)
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    config = make_config(
        {
            **{"dataset": "digits", "backbone": str(folder), "dtype": dtype, "resolution": 64},
            **{"strategy": "full", "params": {"draws": 16}, "limit": 8, "batch_size": 8},
        }
    )
    engine = prepare(config).open_engine()
    assert isinstance(engine, DenoisingEngine) and engine.rounding is not None
    print(f"\nsd15 {dtype}: {engine.rounding}")
    assert engine.rounding["noise"] < 1 and engine.rounding["decisions"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [("sd15", "float32"), ("sd21-768", "float32"), ("sd15", "bfloat16")]
)
def test_linearisation(name: str, dtype: Literal["float32", "bfloat16"], tmp_path: Path) -> None:
    """Agrees with finite differences; prints time and memory beside those of an evaluation."""
    folder = save_published(name, tmp_path / name)
    run = prepare(
        RunConfig(
            dataset="digits",
            backbone=name,
            weights=str(folder),
            strategy="full",
            params={"draws": 1},
            dtype=dtype,
            batch_size=1,
        )
    )
    prompts = from_template("a handwritten digit {class}", ("zero", "one"))
    engine = replace(run, content=replace(run.content, prompts=prompts)).open_engine()
    assert isinstance(engine, DenoisingEngine)
    size = engine.backbone.latent_shape
    latent = torch.randn(1, *size, generator=torch.Generator().manual_seed(1))
    draw, (c,) = np.zeros(1, np.int64), leaves(engine.evaluator.pool.tree).values()
    at = c.float().mean(dim=0).to(c.dtype)

    def timed(label: str, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
        started = time.process_time()  # the processor's: others may use the machine
        value = work()
        seconds = time.process_time() - started
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
        print(f"{name} {dtype} {label}: {seconds:.1f} s, peak {peak:.1f} GiB")
        return value

    def exact(where: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(errors_at(engine, draw, latent, {"0.0": where[None].to(c.dtype)}))

    def first_order() -> torch.Tensor:
        with torch.inference_mode():
            eps, first = engine.evaluator.scoring.noise, torch.zeros(1, dtype=torch.int64)
            noise = eps.of([""], np.zeros((2, 1), np.int64), first)
            even = [np.full(2, 0.5)]
            return engine.linear.first_order(first, latent, noise, even, first.numpy())[0]

    print()
    exact(at)  # loads the UNet
    here = timed("forward", lambda: torch.tensor(exact(at)))
    found = timed("forward and backward", first_order)
    network_of(engine.backbone).save_memory()
    again = timed("forward and backward, recomputing", first_order)
    assert torch.isfinite(found).all()
    slopes = found - here
    np.testing.assert_allclose(again - here, slopes, rtol=0.05, atol=1e-6)
    if dtype == "float32":
        step, toward = 0.5, c[1] - at
        difference = (exact(at + step * toward) - exact(at - step * toward)) / (2 * step)
        print(f"slope {float(slopes[1]):.3e}, finite difference {difference:.3e}")
        np.testing.assert_allclose(float(slopes[1]), difference, rtol=0.05, atol=1e-6)
