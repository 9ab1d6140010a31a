"""`errors/`, `first_order/` and `draws.parquet`: the errors of a run's cells, and its draws.

A cell is an image, a prompt and a draw (a noise level with its noise), and has a denoising error. A
first-order error is estimated from the gradient at a mixture of all prompts. The cells of one image
are a *part*, a parquet file. Exported tables pack many parts into one (`packed.py`).

A row of `draws.parquet`, with which errors are weighted anew, describes one draw: its level (an
index into the model's table of noise levels), its weight, the time passed to the model, alpha and
sigma of x_t = alpha x_0 + sigma eps, p and q of the target p x_0 + q eps, and the model's time as a
fraction in [0, 1] (`progress`). In shapes, P is the number of prompts and N the number of draws.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from bench.contracts.levels import Levels
from bench.contracts.strategy import Evaluate, Floats, Floats32, Ints, Linearise
from bench.errors import UserError, refusing
from bench.machine.files import is_own_file, regular_file, replacing, take_file
from bench.machine.libraries import pa, pq
from bench.store.formats.documents import MAX_STORED_DRAWS
from bench.store.formats.packed import compact_options, find_packed, read_packed

COLUMN_TYPES = {  # of the columns of a part, except `sample_id`
    **dict.fromkeys(("prompt", "draw", "timestep", "mixture"), "int32"),
    "error": "float32",
}

# In the order of writing: an image with a part in `errors` is complete.
ERROR_FOLDERS = ("first_order", "errors")

Times = Floats | Ints
Cells = list[tuple[Evaluate, Floats32]]
Linearised = list[tuple[Linearise, Floats32]]
FirstOrder = list[tuple[Floats, Floats32]]  # mixture [P], first-order errors [P, N]


def part_path(folder: Path, sample_id: str) -> Path:
    """Return the file of an image's part. Its name is a hash, as ids may have any characters."""
    return folder / f"{hashlib.sha256(sample_id.encode()).hexdigest()[:24]}.parquet"


def has_part(folder: Path, sample_id: str) -> bool:
    """Return whether the folder has a part of this image, in a file of its own or packed."""
    return part_path(folder, sample_id).is_file() or find_packed(folder, sample_id) is not None


def has_part_file(folder: Path, sample_id: str) -> bool:
    """Return whether the folder has a complete parquet file (ending in `PAR1`) of this image."""
    path = part_path(folder, sample_id)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() == b"PAR1"
    except OSError:  # absent, or shorter than four bytes
        return False


def write_cells(
    folder: Path, sample_id: str, cells: Cells, timesteps: Ints, times: Times | None = None
) -> None:
    """Write one image's errors into the run's folder `errors`, replacing earlier ones.

    The columns are sample_id, prompt, draw, timestep, error (float32) and, with `times`, time.
    `cells` are requests with their errors, float32 [prompts, draws] of the request. `timesteps` and
    `times` [N] are the level of each draw and the time passed to the model.
    """
    blocks = [(request.prompts, request.draws, values) for request, values in cells]
    columns = _columns_of(blocks, timesteps)
    if times is not None:
        columns["time"] = times[columns["draw"]]
    _write_part(folder, sample_id, columns)


def write_first_order(
    folder: Path, sample_id: str, linearised: Linearised, timesteps: Ints
) -> None:
    """Write one image's first-order errors into the folder `first_order`, replacing earlier ones.

    The columns are sample_id, mixture, prompt, draw, timestep and error (float32). `mixture` is an
    index into a list of mixtures (a weight per prompt), stored as JSON in the file's metadata.
    `linearised` has at least one request, with its errors as float32 [P, draws of the request].
    """
    blocks = [(np.arange(len(values)), request.draws, values) for request, values in linearised]
    mixtures = [tuple(map(float, request.mixture)) for request, _ in linearised]
    distinct = list(dict.fromkeys(mixtures))
    numbers = [distinct.index(mixture) for mixture in mixtures]
    mixture = np.repeat(numbers, [values.size for _, values in linearised])
    columns = {"mixture": mixture, **_columns_of(blocks, timesteps)}
    _write_part(folder, sample_id, columns, {"mixtures": json.dumps(distinct)})


def _columns_of(
    blocks: Sequence[tuple[Any, Any, Floats32]], timesteps: Ints
) -> dict[str, NDArray[Any]]:
    """Return the columns of blocks of cells: prompts, draws and errors [prompts, draws]."""
    prompt, draw, error = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    if blocks:
        grids = [np.meshgrid(prompts, draws, indexing="ij") for prompts, draws, _ in blocks]
        prompt, draw = (np.concatenate([g[axis].ravel() for g in grids]) for axis in (0, 1))
        error = np.concatenate([values.ravel() for *_, values in blocks])
    return {"prompt": prompt, "draw": draw, "timestep": timesteps[draw], "error": error}


def _write_part(
    folder: Path,
    sample_id: str,
    columns: Mapping[str, NDArray[Any]],
    metadata: dict[str, str] | None = None,
) -> None:
    ids = pa.array([sample_id] * len(columns["draw"]), pa.string()).dictionary_encode()
    arrays = {name: pa.array(column, _type_of(name)) for name, column in columns.items()}
    table = pa.table({"sample_id": ids, **arrays}).replace_schema_metadata(metadata)
    folder.mkdir(exist_ok=True)
    with replacing(part_path(folder, sample_id), durable=False) as file:
        pq.write_table(table, file, **compact_options(table.schema))


def _type_of(column: str) -> Any:
    """Return the pyarrow type of a column of a part; None if it follows from the values."""
    return getattr(pa, COLUMN_TYPES[column])() if column in COLUMN_TYPES else None


def copy_part(source: Path, target: Path, sample_id: str) -> None:
    """Copy an image's part if it is complete (UserError if it, or the folder, is a link)."""
    name = f"{source.name}/{part_path(source, sample_id).name}"
    if is_own_file(source.parent, name) and has_part_file(source, sample_id):
        target.mkdir(exist_ok=True)
        take_file(source.parent, name, part_path(target, sample_id))


def read_cells(folder: Path, sample_id: str, shape: tuple[int, int]) -> Floats32:
    """Return errors, float32 [P, N], NaN if missing (FileNotFoundError; UserError if damaged)."""
    part = read_part(folder, sample_id, ("prompt", "draw", "error"))
    prompt, draw = _indices(part, "prompt", shape[0]), _indices(part, "draw", shape[1])
    errors = np.full(shape, np.nan, dtype=np.float32)
    errors[prompt, draw] = part["error"]
    return errors


def read_first_order(folder: Path, sample_id: str, shape: tuple[int, int]) -> FirstOrder:
    """Return each mixture, float64 [P], with one image's first-order errors at it, float32 [P, N].

    Errors that were not estimated are NaN. Raises FileNotFoundError if none are stored, UserError
    if they are damaged or do not fit `shape` (P, N).
    """
    part = read_part(folder, sample_id, ("mixture", "prompt", "draw", "error"))
    mixtures = _mixtures(part, shape[0])
    mixture = _indices(part, "mixture", len(mixtures))
    prompt, draw = _indices(part, "prompt", shape[0]), _indices(part, "draw", shape[1])
    errors = np.full((len(mixtures), *shape), np.nan, dtype=np.float32)
    errors[mixture, prompt, draw] = part["error"]
    return list(zip(mixtures, errors, strict=True))


def read_timesteps(folder: Path, sample_id: str, n_draws: int) -> Ints:
    """Return the timestep of each draw from one image's part, int64, -1 for draws not in it.

    The result has at least `n_draws` elements, and more if the part has higher draws. Raises
    FileNotFoundError if no errors of this image are stored, UserError if they are damaged.
    """
    part = read_part(folder, sample_id, ("draw", "timestep"))
    draw = _indices(part, "draw", MAX_STORED_DRAWS)
    timesteps = np.full(max(n_draws, int(draw.max(initial=-1)) + 1), -1, dtype=np.int64)
    timesteps[draw] = part["timestep"]
    return timesteps


@dataclass(frozen=True)
class ImagePart:
    """Columns of one image's part, with its metadata and the name of its file."""

    file: Path
    columns: Mapping[str, NDArray[Any]]
    metadata: Mapping[bytes, bytes]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]


def read_part(folder: Path, sample_id: str, columns: Sequence[str]) -> ImagePart:
    """Return columns of an image as `COLUMN_TYPES` (FileNotFoundError; UserError if damaged)."""
    path = part_path(folder, sample_id)
    try:
        table = read_part_table(folder, sample_id, columns)
        metadata = table.schema.metadata or {}
        schema = pa.schema([(name, _type_of(name)) for name in columns])
        table = table.select(list(columns)).cast(schema)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    if any(table[name].null_count for name in columns):
        raise UserError(f"{path} is damaged: a value is missing.")
    return ImagePart(path, {name: table[name].to_numpy() for name in columns}, metadata)


def read_part_table(folder: Path, sample_id: str, columns: Sequence[str] | None = None) -> Any:
    """Return one image's part, or some columns of it, as a pyarrow table.

    Raises FileNotFoundError without a part of this image, UserError for a link or a damaged pack.
    """
    path = part_path(folder, sample_id)
    names = None if columns is None else list(columns)
    if file := regular_file(folder.parent, f"{folder.name}/{path.name}"):
        return pq.read_table(file, columns=names)
    if packed := find_packed(folder, sample_id):
        return read_packed(packed, names)
    raise FileNotFoundError(path)


def _indices(part: ImagePart, name: str, count: int) -> Ints:
    """Return a column as int64; a value outside 0 to count - 1 raises UserError."""
    column = part[name].astype(np.int64)
    if len(column) and not 0 <= column.min() <= column.max() < count:
        raise UserError(
            f"{part.file} is damaged: every {name} must be from 0 to {count - 1:,}, got"
            f" {column.min():,} to {column.max():,}."
        )
    return column


def _mixtures(part: ImagePart, prompts: int) -> list[Floats]:
    """Return the mixtures of a part, float64 [P] each."""
    damaged = f"{part.file} is damaged: its mixtures cannot be read: "
    with refusing(damaged, KeyError, TypeError, ValueError):
        content = from_json(part.metadata[b"mixtures"], allow_inf_nan=False)
        mixtures = [np.asarray(weights, dtype=np.float64) for weights in content]
    if any(weights.shape != (prompts,) for weights in mixtures):
        raise UserError(f"{part.file} is damaged: a mixture must have {prompts:,} weights.")
    return mixtures


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
    columns: dict[str, pa.Array] = {
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
        names = [name for name in LEVEL_COLUMNS if name in table.column_names]
        columns = {name: table[name].to_numpy() for name in names}
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
