"""`samples.jsonl`: append-only, and forgiving of what a kill or an editor left in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines that are whole; a torn or damaged one is as if it had not been written."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:  # also where the bytes are not UTF-8
                continue
            if isinstance(record, dict) and isinstance(record.get("sample_id"), str):
                yield record


class Journal:
    """Appends lines, each on disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+")
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """A kill in the middle of a write leaves half a line; drop it."""
        size = self._file.seek(0, os.SEEK_END)
        keep = size
        while keep:
            start = max(0, keep - 65536)
            self._file.seek(start)
            newline = self._file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep != size:
            self._file.truncate(keep)
        self._file.seek(0, os.SEEK_END)

    def append(self, record: Any) -> None:
        """Write one line, whole or not at all as far as the disk allows.

        Raises:
            OSError: the disk is full or gone; a part of the line may be there, and is dropped by
                the next one who opens the journal.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
