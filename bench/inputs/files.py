"""Files that a dataset names: inside the folder that the user named, or not opened."""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

from bench.errors import UserError, quoted


class OutsideError(UserError):
    """A name that leads out of the folder it was found in."""


def inside(root: Path, name: str) -> Path:
    """Return the file that `name` means below `root`, symbolic links resolved.

    It need not exist. In a snapshot of the Hub's cache, the links into the cache's own `blobs/`
    count as inside.

    Raises:
        OutsideError: the file lies outside `root`, or `name` is no name of a file.
    """
    try:
        path = Path(os.path.realpath(root / name))
    except ValueError:
        raise OutsideError(f"{root}: {quoted(name)} is not the name of a file.") from None
    if not path.is_relative_to(_boundary(root)):
        raise OutsideError(
            f"{root}: {quoted(name)} leads out of the folder, and only what lies in it is read."
            " Copy the file into it, or name a folder that holds both."
        )
    return path


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; a folder, device or pipe is refused without opening it.

    Raises:
        OSError: the file is missing, is no regular file, or cannot be read.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    if not file.is_file():
        raise OSError(f"{file} is not a regular file")
    return file.open("rb")


def _boundary(root: Path) -> Path:
    """Return the folder that names may not leave: the root, or the Hub's copy of a repository."""
    real = Path(os.path.realpath(root))
    for folder in (real, *real.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and (repository / "blobs").is_dir():
            return repository
    return real
