"""`samples.jsonl`: append-only; torn and damaged lines are skipped."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from bench.errors import BenchWarning
from bench.machine.files import regular_file

JOURNAL = "samples.jsonl"
LONGEST_LINE = 10_000_000  # bytes; a file without line ends must not fill memory
SYNC_SECONDS = 2.0  # between two calls of fsync


def has_id(value: Any) -> bool:
    """Tell whether a line's value is an object with a sample id."""
    return isinstance(value, dict) and isinstance(value.get("sample_id"), str)


def read_lines(
    path: Path, good: Callable[[Any], bool] = has_id
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield offset, length and record of lines that are complete and `good`.

    Other lines count as not written, with a warning, except for a last one without its end, which a
    killed or a running process leaves. UserError: it is not a regular file inside its folder.
    """
    from pydantic_core import from_json

    file = regular_file(path.parent, path.name)
    if file is None:
        return
    damaged, start = [], 0
    with file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE), b""), start=1):
            try:
                record = from_json(line, allow_inf_nan=False)
            except ValueError:  # also where the bytes are not UTF-8, or nested too deeply
                record = None
            if good(record):
                yield start, len(line), record
            elif line.endswith(b"\n") and line.strip():
                damaged.append(number)
            start += len(line)
    if damaged:
        several = len(damaged) > 1
        warnings.warn(
            f"{path}: line{'s' * several} {', '.join(map(str, damaged[:5]))}"
            f"{' and others' * (len(damaged) > 5)} {'are' if several else 'is'} damaged and count"
            f"{'' if several else 's'} as not written; the same `bench run` scores those images"
            " again, and no others.",
            BenchWarning,
            stacklevel=2,
        )


def complete_length(file: BinaryIO) -> int:
    """Return the number of bytes up to the end of the last complete line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


class Journal:
    """Appends lines, each handed to the system before `append` returns.

    A killed process loses none. Against a loss of power, fsync is called every few seconds and at
    the end: for each line, it would take milliseconds.
    """

    def __init__(self, path: Path) -> None:
        self._synced, self._clean = monotonic(), True
        self._file = path.open("ab+", buffering=0)  # nothing is left in a buffer when a write fails
        complete = complete_length(self._file)
        if complete != self._file.seek(0, os.SEEK_END):  # a kill during a write left half a line
            self._file.truncate(complete)

    def append(self, record: Any) -> None:
        """Write one line, completely or not at all.

        OSError: the disk is full or gone. If even the written part cannot be removed, the next
        process that opens the journal removes it.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        before = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(before)
            raise
        self._clean = False
        if monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        if not self._clean:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                    raise  # these are of file systems without fsync
        self._synced, self._clean = monotonic(), True

    def close(self) -> None:
        """Sync and close the file."""
        with suppress(OSError):
            self._sync()
        self._file.close()
