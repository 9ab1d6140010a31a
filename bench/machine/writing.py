"""Writes that never leave half a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from threading import get_ident


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file at once; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BufferedWriter]:
    """Give a file to write, which takes its place when the block ends without an error.

    A reader, or the next process after a kill, sees all of it or none.

    Args:
        path: the file.
        durable: whether it survives a power cut as well.

    Raises:
        OSError: it cannot be written, or a device, a pipe or a folder has its name.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is there, and is not a regular file", str(path))
    # Not mkstemp: its files are for the user alone, and results are read by others.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that its user knows
        raise
