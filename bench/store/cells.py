"""`errors/*.parquet`: the error of every cell evaluated, one part an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Evaluate, Ints

Cells = list[tuple[Evaluate, NDArray[np.float32]]]


def part_path(folder: Path, sample_id: str) -> Path:
    """Return the file of one image's cells; ids may hold anything, so the name is a hash."""
    return folder / f"{hashlib.sha256(sample_id.encode()).hexdigest()[:24]}.parquet"


def has_cells(folder: Path, sample_id: str) -> bool:
    """Tell whether one image's cells are kept, to the last byte (parquet ends with its mark)."""
    try:
        with part_path(folder, sample_id).open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() == b"PAR1"
    except OSError:  # none, or shorter than the mark
        return False


def write_cells(folder: Path, sample_id: str, cells: Cells, timesteps: Ints) -> None:
    """Write one image's cells: sample_id, prompt, draw, timestep, error (float32)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompts = [np.repeat(request.prompts, len(request.draws)) for request, _ in cells]
    draws = [np.tile(request.draws, len(request.prompts)) for request, _ in cells]
    draw = np.concatenate(draws) if draws else np.zeros(0, np.int64)
    errors = [values.ravel() for _, values in cells]
    table = pa.table(
        {
            "sample_id": pa.array([sample_id] * len(draw), pa.string()).dictionary_encode(),
            "prompt": pa.array(np.concatenate(prompts) if prompts else draw, pa.int32()),
            "draw": pa.array(draw, pa.int32()),
            "timestep": pa.array(timesteps[draw], pa.int32()),
            "error": pa.array(np.concatenate(errors) if errors else draw, pa.float32()),
        }
    )
    folder.mkdir(exist_ok=True)
    path = part_path(folder, sample_id)
    temporary = path.with_suffix(".partial")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def read_cells(folder: Path, sample_id: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return one image's errors as float32 [P, N], NaN where a cell was not evaluated.

    Raises:
        FileNotFoundError: no cells were kept of this image.
    """
    import pyarrow.parquet as pq

    table: Any = pq.read_table(part_path(folder, sample_id), columns=["prompt", "draw", "error"])
    errors = np.full(tuple(shape), np.nan, dtype=np.float32)
    errors[table["prompt"].to_numpy(), table["draw"].to_numpy()] = table["error"].to_numpy()
    return errors


def read_timesteps(folder: Path, sample_id: str, n_draws: int) -> Ints:
    """Return int64 [N], the timestep of each draw, from one image's cells; -1 where it has none.

    Raises:
        FileNotFoundError: no cells were kept of this image.
    """
    import pyarrow.parquet as pq

    table: Any = pq.read_table(part_path(folder, sample_id), columns=["draw", "timestep"])
    draw = table["draw"].to_numpy()
    timesteps = np.full(max(n_draws, int(draw.max(initial=-1)) + 1), -1, dtype=np.int64)
    timesteps[draw] = table["timestep"].to_numpy()
    return timesteps
