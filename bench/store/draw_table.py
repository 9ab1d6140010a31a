"""`draws.parquet`: the draws of a recorded run, so that its errors can be weighed again.

One row per draw: its level (index into the model's table), the time given to the model, x_t =
alpha x_0 + sigma eps, the target p x_0 + q eps, the model's own time as a fraction, and its weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.levels import Levels
from bench.contracts.strategy import Floats, Ints
from bench.errors import UserError
from bench.machine.files import regular_file
from bench.store.documents import MAX_STORED_DRAWS

DRAWS = "draws.parquet"
LEVEL_COLUMNS = ("alpha", "sigma", "time", "p", "q", "progress")


@dataclass(frozen=True)
class DrawTable:
    """The N draws of a run."""

    levels: Ints  # [N], row of each draw in the model's table
    table: Levels  # these N rows
    weights: Floats  # [N]
    n_levels: int  # number of rows of the model's table


def draw_table(levels: Levels, rows: Ints, weights: Floats) -> DrawTable:
    """Return the table of draws on these rows of a model's levels."""
    return DrawTable(rows, levels.rows(rows), weights, len(levels))


def write_draws(folder: Path, draws: DrawTable) -> None:
    """Write the table of a run's draws."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "draw": pa.array(np.arange(len(draws.levels)), pa.int32()),
        "level": pa.array(draws.levels, pa.int32()),
        "weight": pa.array(draws.weights, pa.float64()),
    }
    for name in LEVEL_COLUMNS:
        if (column := getattr(draws.table, name)) is not None:
            columns[name] = pa.array(column)
    table = pa.table(columns).replace_schema_metadata({"levels": str(draws.n_levels)})
    temporary = folder / f"{DRAWS}.partial"
    pq.write_table(table, temporary)
    temporary.replace(folder / DRAWS)


def read_draws(folder: Path, count: int | None = None) -> DrawTable | None:
    """Return the table of a run's draws; None: early versions wrote none.

    UserError: the file is damaged, has not `count` draws (None: any number), or is not a regular
    file inside the folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = regular_file(folder, DRAWS)
    if path is None:
        return None
    try:
        with pq.ParquetFile(path) as file:  # its footer says how many rows there are
            rows = file.metadata.num_rows
            if not 1 <= rows <= MAX_STORED_DRAWS or count not in (None, rows):
                raise ValueError(
                    f"it has {rows:,} rows, and the run {count or MAX_STORED_DRAWS:,} draws"
                )
            table: Any = file.read()
        if any(column.null_count for column in table.columns):
            raise ValueError("a value is missing")
        columns = {
            name: table[name].to_numpy() for name in LEVEL_COLUMNS if name in table.column_names
        }
        levels, weights = table["level"].to_numpy().astype(np.int64), table["weight"].to_numpy()
        n_levels = int(table.schema.metadata[b"levels"])
        if not (levels.min() >= 0 and levels.max() < n_levels):
            raise ValueError(f"its levels are not all within 0 to {n_levels - 1}")
        if not (np.isfinite(weights).all() and weights.min() >= 0 < weights.max()):
            raise ValueError("its weights are not all finite and positive")
        return DrawTable(levels, Levels(**columns), weights.astype(np.float64), n_levels)
    except (OSError, LookupError, TypeError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder / DRAWS} is damaged: {reason}. Record the run again with --fresh."
        ) from None
