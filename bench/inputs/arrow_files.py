"""Rows that take long to make, in Arrow files of the cache: written once, and then mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.machine.writing import replacing


def made_once(target: Path, schema: Any, tables: Callable[[], Iterable[Any]]) -> Path:
    """Return a file of rows, which is written whole where it is not there.

    Args:
        target: the file; its name says all that decides its rows.
        schema: of the rows.
        tables: makes the rows, some at a time, so that few are in memory.

    Raises:
        OSError: the disk does not take it.
    """
    import pyarrow as pa

    if not target.is_file():
        with replacing(target) as file, pa.ipc.new_stream(file, schema) as stream:
            for table in tables():
                stream.write_table(table)
    return target
