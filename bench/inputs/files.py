"""Files that a dataset names: inside the folder that the user named, or not opened."""

from __future__ import annotations

import os
import re
from io import BufferedReader
from pathlib import Path

from bench.errors import UserError, quoted

MOST_FILES = 1_000_000  # that a pattern may mean


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


def expand(pattern: str) -> list[Path]:
    """Return the files that a pattern means: `shard-{000..031}.tar`, or a name without braces.

    Raises:
        UserError: the braces hold no range of numbers, or a file of it is not there.
    """
    found = re.fullmatch(r"([^{}]*)\{(\d+)\.\.(\d+)\}([^{}]*)", pattern)
    names = [pattern]
    if found is not None:
        before, first, last, after = found.groups()
        if not int(first) <= int(last) < int(first) + MOST_FILES:
            raise UserError(f"{quoted(pattern)} is no range of files; write it as {{000..031}}.")
        width = len(first) if first.startswith("0") else 0
        names = [f"{before}{n:0{width}}{after}" for n in range(int(first), int(last) + 1)]
    for name in names:
        if not Path(name).exists():
            of = f", of {quoted(pattern)}" if name != pattern else ""
            raise UserError(f"There is no file {quoted(name)}{of}.")
    return [Path(name) for name in names]


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
