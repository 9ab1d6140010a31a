"""Pipelines of the published shapes, random weights, scored as a user scores them.

`pytest -m slow -s tests/plugins/backbones/test_published_shapes.py` prints time and peak memory.
Each needs minutes, 2 to 15 GB of disk and up to 16 GiB of memory.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.pipelines import loaded
from numpy.typing import NDArray
from oracle.question import Question
from oracle.reference import errors
from PIL import Image

from bench.store.cells import read_cells
from bench.store.folder import read_manifest
from benchmarks.published import save_published

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
