"""`draws.parquet`: the noise levels and weights of a run's draws, to weight its errors anew.

A row describes one draw: its level (an index into the model's table of noise levels), its weight,
the time passed to the model, alpha and sigma of x_t = alpha x_0 + sigma eps, p and q of the
target p x_0 + q eps, and the model's time as a fraction in [0, 1] (`progress`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.levels import Levels
from bench.contracts.strategy import Floats, Ints
from bench.errors import UserError
from bench.machine.files import regular_file, replacing
from bench.store.documents import MAX_STORED_DRAWS

DRAWS = "draws.parquet"
LEVEL_COLUMNS = ("alpha", "sigma", "time", "p", "q", "progress")


@dataclass(frozen=True)
class DrawTable:
    """The N draws of a run."""

    levels: Ints  # [N], row of each draw in the model's table of noise levels
    table: Levels  # these N rows
    weights: Floats  # [N], weight of each draw
    n_levels: int  # number of rows of the model's table


def draw_table(levels: Levels, rows: Ints, weights: Floats) -> DrawTable:
    """Return the table of N draws on rows [N] of a model's noise levels, with weights [N]."""
    return DrawTable(rows, levels.rows(rows), weights, len(levels))


def write_draws(folder: Path, draws: DrawTable) -> None:
    """Write the table of a run's draws."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, object] = {
        "draw": pa.array(np.arange(len(draws.levels)), pa.int32()),
        "level": pa.array(draws.levels, pa.int32()),
        "weight": pa.array(draws.weights, pa.float64()),
    }
    for name in LEVEL_COLUMNS:
        if (column := getattr(draws.table, name)) is not None:
            columns[name] = pa.array(column)
    table = pa.table(columns).replace_schema_metadata({"levels": str(draws.n_levels)})
    with replacing(folder / DRAWS, durable=False) as file:
        pq.write_table(table, file)


def read_draws(folder: Path, count: int | None = None) -> DrawTable | None:
    """Return the table of a run's draws; None if the run has none, as of early versions.

    Raises UserError if the file is damaged, has another number of draws than `count`, or is not a
    regular file inside the folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = regular_file(folder, DRAWS)
    if path is None:
        return None
    try:
        with pq.ParquetFile(path) as file:  # reads the footer only
            rows = file.metadata.num_rows
            if not 1 <= rows <= MAX_STORED_DRAWS or count not in (None, rows):
                expected = f"{count:,}" if count else f"1 to {MAX_STORED_DRAWS:,}"
                raise ValueError(f"expected {expected} rows, got {rows:,}")
            table: Any = file.read()
        if any(column.null_count for column in table.columns):
            raise ValueError("a value is missing")
        columns = {
            name: table[name].to_numpy() for name in LEVEL_COLUMNS if name in table.column_names
        }
        levels, weights = table["level"].to_numpy().astype(np.int64), table["weight"].to_numpy()
        n_levels = int(table.schema.metadata[b"levels"])
        if not (levels.min() >= 0 and levels.max() < n_levels):
            raise ValueError(f"levels must be from 0 to {n_levels - 1}")
        if not (np.isfinite(weights).all() and weights.min() >= 0 < weights.max()):
            raise ValueError("weights must be finite, none negative, and not all 0")
        return DrawTable(levels, Levels(**columns), weights.astype(np.float64), n_levels)
    except (OSError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder / DRAWS} is damaged: {reason}. Record the run again with --fresh."
        ) from None
