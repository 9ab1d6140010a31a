"""`first_order/*.parquet`: the first-order errors of every linearisation, one part per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from bench.contracts.strategy import Floats, Ints, Linearise
from bench.errors import UserError
from bench.store.cells import ImagePart, indices, part_path, read_part

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
