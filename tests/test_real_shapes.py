"""Pipelines of the real Stable Diffusion shapes, random weights, through their own specs.

`pytest -m slow -s tests/test_real_shapes.py` prints time and peak memory. Each needs about
3 GB of disk, 10 GB of memory and some minutes.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import bench
from PIL import Image
from pipelines import save_pipeline
from reference import reference_errors
from safetensors.torch import save_file

from bench.engine.images import resize_and_crop
from bench.store.cells import read_cells
from bench.store.folder import read_manifest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "backbone", "resolution"), [("sd15", "sd15", 512), ("sd21", "sd21-768", 768)]
)
def test_cells_of_a_real_shape(kind: str, backbone: str, resolution: int, tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path / "pipeline", kind, real=True)
    picture = Image.effect_mandelbrot((300, 256), (-2, -1.2, 0.8, 1.2), 90)
    for name in ("beach", "harbor"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
    picture.save(tmp_path / "pictures" / "beach" / "1.png")
    picture.save(tmp_path / "pictures" / "harbor" / "1.png")
    latent = resolution // 8
    noise = torch.randn(1, 4, latent, latent, generator=torch.Generator().manual_seed(1))
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    started = time.perf_counter()
    done = bench(
        *("run", tmp_path / "pictures", "--backbone", backbone, "--weights", folder, "--limit", 1),
        *("--strategy", "full", "--set", "draws=1", "--noise", tmp_path / "noise.safetensors"),
        *("--batch-size", 2, "--save-errors", "--results", tmp_path / "results", "--json"),
        timeout=1200,
    )
    assert done.code == 0, done.err
    cost = done.json["cost"]
    print(
        f"\n{backbone} at {resolution} px: {time.perf_counter() - started:.0f} s in all,"
        f" {cost['seconds'] / cost['evaluations']:.1f} s an evaluation (VAE included),"
        f" peak {cost['peak_memory_bytes'] / 2**30:.1f} GiB"
    )
    run = Path(done.json["results_dir"])
    found = read_cells(run / "errors", read_manifest(run)["samples"][0], (2, 1))
    wanted = reference_errors(
        folder,
        resize_and_crop(picture, resolution),
        ["a photo of a beach", "a photo of a harbor"],
        [500],
        noise,
    )
    print(f"largest relative difference {np.abs(found / wanted - 1).max():.1e}")
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
