"""The toolkit's cache folder, and writes that never leave half a file."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import get_ident


def cache_dir(*parts: str) -> Path:
    """Return a folder of the cache, made if need be: `BENCH_CACHE_DIR`, or `~/.cache/bench`."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("BENCH_CACHE_DIR") or user / "bench", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home must not stop a run: what is cached can be made again
        folder = Path(tempfile.gettempdir(), f"bench-cache-{os.getpid()}", *parts)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(path: Path, content: str | bytes) -> None:
    """Write a file of the cache; where the disk does not take it, it is made again next time.

    It is not forced to the disk, which takes 5 ms per file: a power cut may cost what can be made
    again.
    """
    with suppress(OSError):
        write_atomically(path, content, durable=False)


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file so that a reader, or the next process after a kill, sees all of it or none.

    Args:
        path: the file.
        content: what it holds.
        durable: whether it survives a power cut as well.

    Raises:
        OSError: it cannot be written, or a device, a pipe or a folder has its name.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is there, and is not a regular file", str(path))
    data = content.encode() if isinstance(content, str) else content
    # Not mkstemp: its files are for the user alone, and results are read by others.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
