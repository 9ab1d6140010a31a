"""Files that cannot be read row by row, converted once to Arrow, which can."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from bench.machine.cache import cache_dir, made_once


def converted(
    kind: str,
    files: Sequence[Path],
    key: str,
    schema: pa.Schema,
    tables: Callable[[], Iterator[pa.Table]],
) -> Path:
    """Return an Arrow file with the rows of the files; made anew when one of them has changed.

    A change is noticed by size, file number and the time of the last change of any kind, which
    nobody sets back.

    Args:
        kind: a folder of the cache.
        files: what is converted.
        key: how: another one makes another file.
        schema: of the rows.
        tables: makes the rows, some at a time.
    """
    place = hashlib.sha256(f"{files[0].parent} {files[0].name}".encode()).hexdigest()[:16]
    state = [key]
    for path in files:
        facts = path.stat()
        state.append(
            f"{path} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
        )
    folder = cache_dir(kind, place)
    target = folder / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.arrow"
    if not target.is_file():
        for old in folder.glob("*.arrow*"):
            old.unlink(missing_ok=True)
    return made_once(target, schema, tables)
