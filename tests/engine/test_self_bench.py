"""The settings that name SELF-BENCH's classifier (arXiv 2505.17955), after its code.

Un-squared norm over the latent; eps for Stable Diffusion on levels 32, 65 … 989, velocity for SD 3
on even indices of its scheduler's shifted table; a sample of the latents' posterior; images
squashed to the resolution, noise drawn anew for each image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import families
from helpers.pipelines import loaded, save_indexed
from oracle.question import Question
from oracle.reference import errors
from PIL import Image

import bench as toolkit
from bench.store.folder import read_records

SETTINGS: dict[str, Any] = {
    "loss": "norm",
    "latent": "sample",
    "fit": "squash",
    "noise_per": "image",
    "levels": ",".join(map(str, range(32, 990, 33))),  # 30 of them
    "seed": 3,
}
PROMPTS = (("a photo of a cat", 0), ("a photo of a dog", 1))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sd15", "sd3"])
def test_its_classifier_is_ours_under_the_settings_that_name_it(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / kind
    pipe = loaded(save_indexed(folder)) if kind == "sd15" else families.save(kind, folder)
    generator, files = np.random.default_rng(0), {}
    for name in ("cat/1.png", "dog/2.png"):
        files[name] = tmp_path / "data" / name
        files[name].parent.mkdir(parents=True)
        Image.fromarray(generator.integers(0, 256, (30, 47, 3), np.uint8)).save(files[name])
    run = toolkit.run(
        str(tmp_path / "data"),
        backbone=str(folder),
        strategy="full",
        params={"draws": 30},
        batch_size=16,
        resolution=16,
        results=str(tmp_path / "results"),
        **SETTINGS,
    )
    wanted, _ = errors(pipe, files, Question(PROMPTS, 16, draws=30, **SETTINGS))
    records = read_records(Path(run["results_dir"]))
    for name, table in zip(files, wanted, strict=True):
        scores = {place: score for place, score, _ in records[name]["top"]}
        np.testing.assert_allclose([scores[0], scores[1]], table.mean(axis=1), rtol=1e-5)
