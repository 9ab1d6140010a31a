"""Files of stored results: only regular ones inside their folder are opened."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from bench.errors import UserError

LARGEST_JSON = 500_000_000  # bytes; a manifest of a million samples has about 50 million


def regular_file(root: Path, name: str) -> Path | None:
    """Return the regular file `name` of a folder, links resolved; None if it is not there.

    Raises:
        UserError: it is something else (a FIFO or a device may block for ever), or a link that
            leads out of the folder.
    """
    path = root / name
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
        inside = real.is_relative_to(root.resolve())
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(f"{path} is a broken link.") from None
        return None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a circle of links
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not inside:
        raise UserError(f"{path} is a link that leads out of {root}. Put a copy in its place.")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a regular file.")
    return real


def read_json(root: Path, name: str, most: int = LARGEST_JSON) -> Any:
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
        if file.stat().st_size > most:
            raise UserError(f"{root / name} is larger than {most // 1_000_000:,} MB.")
        return from_json(file.read_bytes(), allow_inf_nan=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{root / name} cannot be read: {error}.") from None
