"""`errors/` and `first_order/`: parquet files with the errors of each image."""

from __future__ import annotations

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

from bench.contracts.strategy import Evaluate, Floats, Ints, Linearise
from bench.errors import UserError
from bench.machine.files import regular_file
from bench.store.documents import MAX_STORED_DRAWS
from bench.store.packed import find_packed, read_packed

TYPES = {
    "prompt": "int32",
    "draw": "int32",
    "timestep": "int32",
    "mixture": "int32",
    "error": "float32",
}  # of the parts' columns; `sample_id` is beside them

Times = NDArray[np.float64] | Ints
Cells = list[tuple[Evaluate, NDArray[np.float32]]]


def part_path(folder: Path, sample_id: str) -> Path:
    """Return the file of one image's cells; ids may hold anything, so the name is a hash."""
    return folder / f"{hashlib.sha256(sample_id.encode()).hexdigest()[:24]}.parquet"


def holds_part(folder: Path, sample_id: str) -> bool:
    """Tell whether one image's part is in the folder, in a file of its own or packed."""
    return part_path(folder, sample_id).is_file() or find_packed(folder, sample_id) is not None


def has_cells(folder: Path, sample_id: str) -> bool:
    """Tell whether one image's cells have a file, whole to the last byte (its mark)."""
    path = part_path(folder, sample_id)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            return file.read() == b"PAR1"
    except OSError:  # none, or shorter than the mark
        return False


def write_cells(
    folder: Path, sample_id: str, cells: Cells, timesteps: Ints, times: Times | None = None
) -> None:
    """Write one image's cells: sample_id, prompt, draw, timestep, error (float32).

    Args:
        folder: of all images' parts.
        sample_id: the image.
        cells: blocks with their errors.
        timesteps: int64 [N], the level of each draw.
        times: [N], what the model was told, kept as a column `time`; None: its level.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompts = [np.repeat(request.prompts, len(request.draws)) for request, _ in cells]
    draws = [np.tile(request.draws, len(request.prompts)) for request, _ in cells]
    draw = np.concatenate(draws) if draws else np.zeros(0, np.int64)
    errors = [values.ravel() for _, values in cells]
    columns = {
        "sample_id": pa.array([sample_id] * len(draw), pa.string()).dictionary_encode(),
        "prompt": pa.array(np.concatenate(prompts) if prompts else draw, pa.int32()),
        "draw": pa.array(draw, pa.int32()),
        "timestep": pa.array(timesteps[draw], pa.int32()),
        "error": pa.array(np.concatenate(errors) if errors else draw, pa.float32()),
    }
    if times is not None:
        columns["time"] = pa.array(times[draw])
    table = pa.table(columns)
    folder.mkdir(exist_ok=True)
    path = part_path(folder, sample_id)
    temporary = path.with_suffix(".partial")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def read_cells(folder: Path, sample_id: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return one image's errors as float32 [P, N], NaN where a cell was not evaluated.

    Raises:
        FileNotFoundError: no cells were kept of this image.
        UserError: they are damaged, or of another run.
    """
    table = read_part(folder, sample_id, ("prompt", "draw", "error"))
    errors = np.full(shape, np.nan, dtype=np.float32)
    errors[indices(table, "prompt", shape[0]), indices(table, "draw", shape[1])] = table["error"]
    return errors


def read_timesteps(folder: Path, sample_id: str, n_draws: int) -> Ints:
    """Return int64 [N], the timestep of each draw, from one image's cells; -1 where it has none.

    Raises:
        FileNotFoundError: no cells were kept of this image.
        UserError: they are damaged.
    """
    table = read_part(folder, sample_id, ("draw", "timestep"))
    draw = indices(table, "draw", MAX_STORED_DRAWS)
    timesteps = np.full(max(n_draws, int(draw.max(initial=-1)) + 1), -1, dtype=np.int64)
    timesteps[draw] = table["timestep"]
    return timesteps


@dataclass(frozen=True)
class ImagePart:
    """The columns of one image's part, and the file they are from."""

    file: Path
    columns: Mapping[str, NDArray[Any]]
    metadata: Mapping[bytes, bytes]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]


def read_part(folder: Path, sample_id: str, columns: Sequence[str]) -> ImagePart:
    """Return columns of one image's part, without nulls and of their types.

    Args:
        folder: `errors/` or `first_order/` of a run.
        sample_id: the image.
        columns: names out of `TYPES`.

    Raises:
        FileNotFoundError: there is no part of this image.
        UserError: it is damaged.
    """
    import pyarrow as pa

    path = part_path(folder, sample_id)
    try:
        table = whole_part(folder, sample_id, columns)
        metadata = table.schema.metadata or {}
        schema = pa.schema([(name, getattr(pa, TYPES[name])()) for name in columns])
        table = table.select(list(columns)).cast(schema)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    if any(table[name].null_count for name in columns):
        raise UserError(f"{path} is damaged: a value is missing.")
    found = {name: table[name].to_numpy() for name in columns}
    return ImagePart(path, found, metadata)


def whole_part(folder: Path, sample_id: str, columns: Sequence[str] | None = None) -> Any:
    """Return one image's part as it was written, a pyarrow table, or some columns of it.

    Raises:
        FileNotFoundError: there is no part of this image.
        UserError: its file is not a regular one inside the run's folder.
    """
    import pyarrow.parquet as pq

    path = part_path(folder, sample_id)
    chosen = None if columns is None else list(columns)
    if file := regular_file(folder.parent, f"{folder.name}/{path.name}"):
        return pq.read_table(file, columns=chosen)
    if place := find_packed(folder, sample_id):
        return read_packed(place, chosen)
    raise FileNotFoundError(path)


def indices(part: ImagePart, name: str, count: int) -> Ints:
    """Return a column of indices, int64, all from 0 to below `count`.

    Raises:
        UserError: one is not.
    """
    found = part[name].astype(np.int64)
    if len(found) and not 0 <= found.min() <= found.max() < count:
        raise UserError(f"{part.file} is damaged: a {name} is none of the run's {count:,}.")
    return found


Linearised = list[tuple[Linearise, NDArray[np.float32]]]
FirstOrder = list[tuple[Floats, NDArray[np.float32]]]  # mixture [P], first-order errors [P, N]


def write_first_order(
    folder: Path, sample_id: str, linearised: Linearised, timesteps: Ints
) -> None:
    """Write one image's part: sample_id, mixture (index), prompt, draw, timestep, error (float32).

    The mixtures themselves, weights over the prompts, stand in the schema's metadata as JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    weights: dict[tuple[float, ...], int] = {}
    rows: list[Any] = []
    for request, values in linearised:
        number = weights.setdefault(tuple(map(float, request.mixture)), len(weights))
        prompts, n = values.shape
        rows.append(
            (
                np.full(values.size, number),
                np.repeat(np.arange(prompts), n),
                np.tile(request.draws, prompts),
                values.ravel(),
            )
        )
    mixture, prompt, draw, error = (np.concatenate(column) for column in zip(*rows, strict=True))
    table = pa.table(
        {
            "sample_id": pa.array([sample_id] * len(draw), pa.string()).dictionary_encode(),
            "mixture": pa.array(mixture, pa.int32()),
            "prompt": pa.array(prompt, pa.int32()),
            "draw": pa.array(draw, pa.int32()),
            "timestep": pa.array(timesteps[draw], pa.int32()),
            "error": pa.array(error, pa.float32()),
        }
    ).replace_schema_metadata({"mixtures": json.dumps([list(w) for w in weights])})
    folder.mkdir(exist_ok=True)
    path = part_path(folder, sample_id)
    temporary = path.with_suffix(".partial")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def read_first_order(folder: Path, sample_id: str, shape: tuple[int, int]) -> FirstOrder:
    """Return one image's first-order errors by mixture, float32 [P, N], NaN where there are none.

    Raises:
        FileNotFoundError: none were kept of this image.
        UserError: they are damaged, or of another run.
    """
    part = read_part(folder, sample_id, ("mixture", "prompt", "draw", "error"))
    mixtures = _mixtures(part, shape[0])
    mixture = indices(part, "mixture", len(mixtures))
    prompt, draw = indices(part, "prompt", shape[0]), indices(part, "draw", shape[1])
    found: FirstOrder = []
    for number, weights in enumerate(mixtures):
        errors = np.full(shape, np.nan, dtype=np.float32)
        mine = mixture == number
        errors[prompt[mine], draw[mine]] = part["error"][mine]
        found.append((weights, errors))
    return found


def _mixtures(part: ImagePart, prompts: int) -> list[Floats]:
    """Return the mixtures that a part names, float64 [P] each."""
    try:
        content = from_json(part.metadata[b"mixtures"], allow_inf_nan=False)
        found = [np.asarray(weights, dtype=np.float64) for weights in content]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{part.file} is damaged: its mixtures cannot be read: {error}.") from None
    if any(weights.shape != (prompts,) for weights in found):
        raise UserError(f"{part.file} is damaged: a mixture does not have {prompts:,} weights.")
    return found
