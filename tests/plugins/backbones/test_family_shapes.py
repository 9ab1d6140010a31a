"""SDXL and SD 3 medium at their published shapes, random weights, in bfloat16, as a user runs them.

`pytest -m slow -s tests/plugins/backbones/test_family_shapes.py` prints seconds and peak memory.
Each needs up to 15 GB of disk and 16 GiB of memory.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.published import save_published
from PIL import Image

from bench.store.cells import read_cells
from bench.store.folder import read_manifest

MOST = 16 * 2**30


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_two_prompts_on_two_levels(name: str, tmp_path: Path) -> None:
    folder = save_published(name, tmp_path / name)
    for number, label in enumerate(("beach", "harbor")):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (300, 256, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / label / "1.png")
    started = time.perf_counter()
    done = bench(
        *("run", tmp_path / "pictures", "--backbone", name, "--weights", folder, "--limit", 1),
        *("--strategy", "full", "--set", "draws=2", "--batch-size", 1, "--dtype", "bfloat16"),
        *("--save-errors", "--results", tmp_path / "results", "--json"),
    )
    assert done.code == 0, done.err
    cost = done.json["cost"]
    print(
        f"\n{name} in bfloat16: {time.perf_counter() - started:.0f} s in all,"
        f" {cost['seconds'] / cost['evaluations']:.1f} s an evaluation (VAE included),"
        f" peak {cost['peak_memory_bytes'] / 2**30:.1f} GiB"
    )
    run = Path(done.json["results_dir"])
    found = read_cells(run / "errors", read_manifest(run).samples[0], (2, 2))
    print(found)
    assert np.isfinite(found).all() and cost["evaluations"] == 4
    assert cost["peak_memory_bytes"] < MOST
