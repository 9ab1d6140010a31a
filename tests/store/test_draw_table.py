"""A recorded run knows its draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.contracts.levels import Levels, diffusion_levels, edm_levels, flow_levels, karras_sigmas
from bench.store.draw_table import COLUMNS, draw_table, read_draws, write_draws

TABLES = {
    "diffusion": diffusion_levels(np.linspace(0.99, 0.01, 50), "epsilon"),
    "flow": flow_levels({"num_train_timesteps": 50, "shift": 3.0}),
    "edm": edm_levels(karras_sigmas(50)),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    levels: Levels = TABLES[name]
    rows = np.array([3, 3, 20, 41])
    assert read_draws(tmp_path) is None
    write_draws(tmp_path, draw_table(levels, rows, np.array([0.5, 1, 1, 1.5])))
    found = read_draws(tmp_path)
    assert found is not None and found.n_levels == 50
    assert found.levels.tolist() == rows.tolist() and found.weights.tolist() == [0.5, 1, 1, 1.5]
    for column in COLUMNS:
        one, other = getattr(found.table, column), getattr(levels, column)
        if other is None:
            assert one is None
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other[rows])
    assert [p.name for p in tmp_path.iterdir()] == ["draws.parquet"]
