"""The spaces in which an error is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bench as toolkit
from bench.store.cells import read_cells
from bench.store.folder import read_manifest

DRAWS = 6
GRID = [83, 250, 416, 583, 750, 916]  # floor((k + 1/2) · 1000 / 6)


@pytest.mark.long
def test_spaces_are_multiples_of_each_other(pipelines: dict[str, Path], tmp_path: Path) -> None:
    """eps-error = alpha² · v-error, cell by cell (see `bench.engine.scoring`)."""
    from diffusers import DDPMScheduler

    tables = {}
    for space in ("prediction", "epsilon", "sample"):
        summary = toolkit.run(
            "digits",
            backbone=str(pipelines["sd21"]),
            strategy="full",
            params={"draws": DRAWS},
            space=space,
            limit=1,
            batch_size=16,
            save_errors=True,
            results=str(tmp_path),
        )
        run = Path(summary["results_dir"])
        tables[space] = read_cells(run / "errors", read_manifest(run).samples[0], (10, DRAWS))
    abar = DDPMScheduler.from_pretrained(pipelines["sd21"] / "scheduler").alphas_cumprod[GRID]
    np.testing.assert_allclose(tables["epsilon"], tables["prediction"] * abar.numpy(), rtol=1e-4)
    np.testing.assert_allclose(
        tables["sample"], tables["prediction"] * (1 - abar.numpy()), rtol=1e-4
    )
