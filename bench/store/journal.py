"""`samples.jsonl`: append-only, and forgiving of what a kill or an editor left in it."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from bench.errors import BenchWarning
from bench.machine.files import regular_file

JOURNAL = "samples.jsonl"
LONGEST_LINE = 10_000_000  # bytes; a file without line ends must not fill memory
SYNC_SECONDS = 2.0  # between two times that the disk is told to keep what it has


def has_id(value: Any) -> bool:
    """Tell whether a line's value can be a record at all."""
    return isinstance(value, dict) and isinstance(value.get("sample_id"), str)


def read_journal(path: Path, good: Callable[[Any], bool] = has_id) -> Iterator[dict[str, Any]]:
    """Yield the records of the lines that are whole and `good`; see `read_lines`."""
    return (record for _, _, record in read_lines(path, good))


def read_lines(
    path: Path, good: Callable[[Any], bool] = has_id
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield place, length and record of the lines that are whole and `good`.

    The others are as if they had not been written.

    Warns of damaged lines, except for a last one without its end: a kill, or a run under way,
    leaves that.

    Raises:
        UserError: it is not a regular file inside its folder.
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


class Journal:
    """Appends lines, each handed to the system before `append` returns.

    A process that is killed loses none. Against a loss of power the disk is told to keep them every
    few seconds, in groups, and at the end: each by itself would take milliseconds.
    """

    def __init__(self, path: Path) -> None:
        self._synced, self._clean = monotonic(), True
        self._file = path.open("ab+", buffering=0)  # nothing is left in a buffer when a write fails
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
        """Write one line, whole or not at all.

        Raises:
            OSError: the disk is full or gone. Where even the part that was written cannot be
                taken back, the next one who opens the journal drops it.
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
                    raise  # all others than file systems that cannot do it
        self._synced, self._clean = monotonic(), True

    def close(self) -> None:
        """Have the disk keep all lines, and close the file."""
        with suppress(OSError):
            self._sync()
        self._file.close()
