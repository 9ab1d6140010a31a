"""The toolkit's cache folder, with checks that the content of an entry is what was written.

Every entry has the SHA-256 of its content: a small entry at its beginning, a large one in a
separate file. The digest of a small entry is checked at every read. That of a large entry is
checked again only if its size, times or inode have changed, because tens of gigabytes are
memory-mapped rather than read. An entry that fails its check is removed with a warning, so that it
is created again.
"""

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
from bench.machine.libraries import pa

DIGITS = 64  # hex digits of a SHA-256
SEAL = ".sha256"  # suffix of the file with the digest of a large entry
# No room, a read-only folder, or (from `replacing`) something that is no file in its place.
NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EEXIST)


def cache_dir(*parts: str) -> Path:
    """Return a folder in `BENCH_CACHE_DIR` or `~/.cache/bench`, or else a temporary one."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("BENCH_CACHE_DIR") or user / "bench", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home must not stop a run, because the cache is optional
        folder = Path(_temporary_folder().name, *parts)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-cache-")


def write_cached(path: Path, content: str | bytes) -> None:
    """Write a small entry if possible. A sync would take 5 ms, so a power cut may lose it."""
    content = content.encode() if isinstance(content, str) else content
    digest = hashlib.sha256(content).hexdigest()
    with suppress(OSError):
        write_atomically(path, digest.encode() + content, durable=False)


def read_cached(path: Path) -> bytes | None:
    """Return the content of a small entry; None if it is missing or damaged."""
    with reading_cached(path):
        stored = read_bytes(path)
        content = stored[DIGITS:]
        if stored[:DIGITS] != hashlib.sha256(content).hexdigest().encode():
            raise OSError("not what was written")
        return content
    return None


@contextmanager
def reading_cached(path: Path) -> Iterator[None]:
    """Skip the rest of the block if an entry cannot be read; remove a damaged one (OSError)."""
    try:
        yield
    except (FileNotFoundError, PermissionError):  # missing, incomplete, or another user's
        pass
    except OSError:  # such as a pipe
        warn_user(f"{path} in the cache is damaged and will be created again.")
        with suppress(OSError):
            path.unlink()


@contextmanager
def writing_cached(path: Path, durable: bool = True) -> Iterator[BufferedWriter]:
    """Yield a file to write a large entry, which replaces `path` when the block ends."""
    seal = path.with_name(path.name + SEAL)
    with replacing(path, durable) as file:
        yield file
        file.flush()
        digest = file_digest(Path(file.name))
        seal.unlink(missing_ok=True)  # it belongs to the file that is about to be replaced
    write_atomically(seal, f"{digest} {stamp(path)}", durable=False)


def is_cached(path: Path, always: bool = False) -> bool:
    """Return whether a large entry exists with the content that was written.

    Its content is read if `always` is set, or if its size, times or inode have changed since the
    last check. A damaged entry is removed with a warning.
    """
    seal = path.with_name(path.name + SEAL)
    with reading_cached(path):
        if not path.exists():
            return False
        if not path.is_file():
            raise OSError("such as a pipe")
        digest, _, sealed = read_bytes(seal).decode("ascii", "replace").partition(" ")
        current = stamp(path)
        if current == sealed and not always:
            return True
        if digest == file_digest(path):
            if current != sealed:  # for example in a copy of the whole cache
                with suppress(OSError):
                    write_atomically(seal, f"{digest} {current}", durable=False)
            return True
        raise OSError("not what was written")
    return False


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Return the hash of a regular file in hex digits; raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, kind).hexdigest()


def stamp(path: Path) -> str:
    """Return size, times and inode of a file as text; only the change time cannot be set back."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def cached_arrow(target: Path, schema: Any, tables: Callable[[], Iterable[Any]]) -> Path:
    """Return the Arrow file `target` in the cache, after writing it if it is missing or damaged.

    Its name must depend on everything that determines its rows, which `tables` returns in parts to
    save memory. Raises UserError if it cannot be written.
    """
    if not is_cached(target):
        try:
            with writing_cached(target) as file, pa.ipc.new_stream(file, schema) as stream:
                for table in tables():
                    stream.write_table(table)
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
            raise UserError(
                f"Cannot write {target.name} to the cache folder {target.parent}: {error.strerror}."
                " Make room there, or set BENCH_CACHE_DIR to another folder."
            ) from None
    return target
