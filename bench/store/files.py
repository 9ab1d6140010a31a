"""The JSON files of stored results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.files import read_bytes, regular_file

MAX_JSON_BYTES = 500_000_000  # bytes; a manifest of a million samples has about 50 million


def read_json(root: Path, name: str, most: int = MAX_JSON_BYTES) -> Any:
    """Return what the JSON file `name` of a folder holds.

    Raises:
        UserError: it is not there, not a regular file inside the folder, larger than `most` bytes,
            or no JSON; NaN and infinity are not.
    """
    from pydantic_core import from_json

    file = regular_file(root, name)
    if file is None:
        raise UserError(f"There is no file {root / name}.")
    try:
        return from_json(read_bytes(file, most), allow_inf_nan=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{root / name} cannot be read: {error}.") from None
