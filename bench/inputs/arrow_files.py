"""Rows that take long to make, in Arrow files of the cache: written once, and then mapped."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.cache import is_kept, keeping

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EEXIST)


def made_once(target: Path, schema: Any, tables: Callable[[], Iterable[Any]]) -> Path:
    """Return a file of rows, which is written whole where it is not there or damaged.

    Args:
        target: the file; its name says all that decides its rows.
        schema: of the rows.
        tables: makes the rows, some at a time, so that few are in memory.

    Raises:
        UserError: the disk does not take it.
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
