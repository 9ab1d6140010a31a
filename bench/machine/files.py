"""Files that data, weights and stored runs name: regular, and inside their folder, or not opened.

One layout of links is allowed: that of the Hugging Face Hub's cache, where `snapshots/COMMIT/…`
links to `blobs/` beside it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from bench.errors import UserError, quoted

HUB = ("models--", "datasets--")  # how the Hub's cache names the copy of a repository


class OutsideError(UserError):
    """A name that leads out of the folder it was found in."""


def inside(root: Path, name: str) -> Path:
    """Return the file that `name` means below `root`, symbolic links resolved; it need not exist.

    Raises:
        OutsideError: the file lies outside `root`, or `name` is no name of a file.
    """
    try:
        path = Path(os.path.realpath(root / name))
    except ValueError:
        raise OutsideError(f"{root}: {quoted(name)} is not the name of a file.") from None
    if not _within(path, root):
        raise OutsideError(
            f"{root}: {quoted(name)} leads out of the folder, and only what lies in it is read."
            " Copy the file into it, or name a folder that holds both."
        )
    return path


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
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(f"{path} is a broken link.") from None
        return None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a circle of links
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not _within(real, root):
        raise UserError(
            f"{path} is a link that leads out of the folder {root}. Put a copy in its place."
        )
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a regular file.")
    return real


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


def _within(real: Path, root: Path) -> bool:
    # The usual case is told without pathlib, which is slow for thousands of files.
    if str(real).startswith(f"{os.path.realpath(root).rstrip(os.sep)}{os.sep}"):
        return True
    return any(real.is_relative_to(place) for place in _places(root))


def _places(root: Path) -> Iterator[Path]:
    """Yield the folders in which a folder's files may lie."""
    real = Path(os.path.realpath(root))
    yield real
    for folder in (real, *real.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and repository.name.startswith(HUB):
            yield folder
            yield repository / "blobs"
            return
