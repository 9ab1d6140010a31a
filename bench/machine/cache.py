"""The toolkit's cache folder, whose entries are used only if their content is what was written.

Every entry has the SHA-256 of its content: a small one in front of it, a large one in a file beside
it. That of a small entry is compared whenever it is read. That of a large one is compared again
only when size, times or file number have changed, since tens of gigabytes are mapped rather than
read. A damaged entry is never used; it is made again, with a warning.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedWriter
from pathlib import Path
from typing import Any

from bench.errors import UserError, warn_user
from bench.machine.files import open_regular, read_bytes, replacing, write_atomically

DIGITS = 64  # hex digits of a SHA-256
SEAL = ".sha256"  # suffix of the file beside a large entry
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EEXIST)


def cache_dir(*parts: str) -> Path:
    """Return a folder in `BENCH_CACHE_DIR` or `~/.cache/bench`, and create it if need be."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("BENCH_CACHE_DIR") or user / "bench", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home must not stop a run: what is cached can be made again
        folder = Path(_private().name, *parts)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _private() -> tempfile.TemporaryDirectory[str]:
    """Return a folder of this process alone, which is removed at its end."""
    return tempfile.TemporaryDirectory(prefix="bench-cache-")


def keep(path: Path, content: str | bytes) -> None:
    """Write a small entry, unless the disk is full.

    It is not forced to the disk, which takes 5 ms per file: after a power cut it is made again.
    """
    content = content.encode() if isinstance(content, str) else content
    digest = hashlib.sha256(content).hexdigest()
    with suppress(OSError):
        write_atomically(path, digest.encode() + content, durable=False)


def recall(path: Path) -> bytes | None:
    """Return the content of a small entry; None where it is not there, or damaged."""
    try:
        stored = read_bytes(path)
    except (FileNotFoundError, PermissionError):  # another user's is not one of ours
        return None
    except OSError:  # such as a pipe
        discard(path)
        return None
    content = stored[DIGITS:]
    if stored[:DIGITS] != hashlib.sha256(content).hexdigest().encode():
        discard(path)
        return None
    return content


@contextmanager
def keeping(path: Path, durable: bool = True) -> Iterator[BufferedWriter]:
    """Yield a file for a large entry, which takes its place when the block ends (OSError)."""
    seal = path.with_name(path.name + SEAL)
    with replacing(path, durable) as file:
        yield file
        file.flush()
        digest = file_digest(Path(file.name))
        seal.unlink(missing_ok=True)  # of the file which is replaced
    write_atomically(seal, f"{digest} {stamp(path)}", durable=False)


def is_kept(path: Path, always: bool = False) -> bool:
    """Return whether a large entry is there and has the content that was written.

    All of it is read `always`, or if it looks different from when it was read last.
    """
    seal = path.with_name(path.name + SEAL)
    try:
        if not path.is_file():
            raise OSError("such as a pipe") if path.exists() else FileNotFoundError
        digest, _, sealed = read_bytes(seal).decode("ascii", "replace").partition(" ")
        current = stamp(path)
        if current == sealed and not always:
            return True
        if digest == file_digest(path):
            if current != sealed:  # such as in a copy of the whole cache
                with suppress(OSError):
                    write_atomically(seal, f"{digest} {current}", durable=False)
            return True
    except (FileNotFoundError, PermissionError):  # never finished, or another user's
        return False
    except OSError:
        pass
    discard(path)
    return False


def discard(path: Path) -> None:
    """Warn of a damaged entry and remove it, so that nothing stands in the way of a new one."""
    warn_user(f"{path} in the cache is damaged; it is made again.")
    with suppress(OSError):
        path.unlink()


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Return a hash of a regular file in hex digits; `OSError`: see `open_regular`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, kind).hexdigest()


def stamp(path: Path) -> str:
    """Return size, times and number of a file; nobody sets back the time of its last change."""
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


def made_once(target: Path, schema: Any, tables: Callable[[], Iterable[Any]]) -> Path:
    """Return an Arrow file of rows, which is written whole where it is not there or damaged.

    Its name depends on all that decides its rows, which `tables` makes, some at a time, so that few
    are in memory. A UserError if the disk does not take it.
    """
    import pyarrow as pa

    if not is_kept(target):
        try:
            with keeping(target) as file, pa.ipc.new_stream(file, schema) as stream:
                for table in tables():
                    stream.write_table(table)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f"The cache folder {target.parent} does not take {target.name}: {error.strerror}."
                " Make room there, or name another folder in BENCH_CACHE_DIR."
            ) from None
    return target
