"""`samples.jsonl`: append-only; torn and damaged lines are skipped. Read as lines or as a table."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np

from bench.contracts.strategy import DECIDED_BY
from bench.errors import warn_user
from bench.machine.files import regular_file
from bench.store.arrow import indices, values
from bench.store.records import (
    LARGEST_ERROR,
    MOST_EVALUATIONS,
    MOST_SECONDS,
    SWEEP,
    is_record,
)

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
        warn_user(
            f"{path}: line{'s' * several} {', '.join(map(str, damaged[:5]))}"
            f"{' and others' * (len(damaged) > 5)} {'are' if several else 'is'} damaged and count"
            f"{'' if several else 's'} as not written; the same `bench run` scores those images"
            " again, and no others."
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


def read_table(path: Path, n_classes: int, top: bool = False) -> Any:
    """Return the latest record of each sample as a pyarrow table, in order; `top` if wanted."""
    import pyarrow.compute as pc

    file = regular_file(path, JOURNAL)
    table = _parsed(file, n_classes, top) if file else to_table([], top)
    if table is None:
        lines = read_lines(path / JOURNAL, lambda value: is_record(value, n_classes))
        table = to_table(list({r["sample_id"]: r for _, _, r in lines}.values()), top)
    if pc.count_distinct(table["sample_id"]).as_py() < len(table):  # samples were tried again
        codes = values(table["sample_id"].combine_chunks().dictionary_encode().indices)[::-1]
        last = len(codes) - 1 - np.unique(codes, return_index=True)[1]
        table = table.take(indices(np.sort(last)))
    return table


def _parsed(file: Path, n_classes: int, top: bool) -> Any:
    """Return the complete lines of the journal as a table; None: one of them is not a record."""
    import pyarrow as pa
    import pyarrow.json as pj

    options = pj.ParseOptions(explicit_schema=_schema(top), unexpected_field_behavior="ignore")
    try:
        with file.open("rb") as lines:
            length = complete_length(lines)
        large = length >= _BLOCK_BYTES  # for less, threads cost more than they save
        with pa.memory_map(str(file)) as source:
            table = pj.read_json(
                pa.BufferReader(source.read_buffer(length)),
                read_options=pj.ReadOptions(use_threads=large),
                parse_options=options,
            )
    except (OSError, ValueError, pa.ArrowException):  # an empty file, a damaged line
        return None
    return table if _sound(table, n_classes) else None


def _sound(table: Any, n_classes: int) -> bool:
    """Tell whether every row is valid as for `is_record`, column by column."""
    import pyarrow.compute as pc

    if any(table[name].null_count for name in _REQUIRED):
        return False
    if table["prediction"].null_count:
        neither = pc.and_(table["prediction"].is_null(), table["error"].is_null())
        if pc.any(neither).as_py():
            return False
    ranges = {"label": n_classes - 1, "prediction": n_classes - 1, "confidence": 1, **_AMOUNTS}
    for name, most in ranges.items():
        column = values(table[name], 0)
        if len(column) and not (column.min() >= 0 and column.max() <= most):
            return False
    if not (np.abs(values(table["margin"], 0)) <= LARGEST_ERROR).all():
        return False
    # Not `pa.array` and `is_in`: pyarrow would import pandas for it.
    if not set(pc.unique(table["decided_by"]).to_pylist()) <= {None, SWEEP, *DECIDED_BY}:
        return False
    return "top" not in table.column_names or _sound_top(table["top"], n_classes)


def _sound_top(column: Any, n_classes: int) -> bool:
    """Tell whether the entries of `top` are all [class, score, draws]."""
    pairs = column.combine_chunks().flatten()
    entries = pairs.flatten()
    if column.null_count or pairs.null_count or len(entries) != 3 * len(pairs):
        return False
    classes = values(entries, np.nan)[::3]
    whole = (values(pairs.value_lengths()) == 3).all() and (classes == np.floor(classes)).all()
    return bool(whole and (classes >= 0).all() and (classes < n_classes).all())


_BLOCK_BYTES = 1 << 20  # that pyarrow parses at a time
_REQUIRED = ("sample_id", "label", "evaluations", "seconds")
_AMOUNTS = {
    **dict.fromkeys(("evaluations", "linearisations"), MOST_EVALUATIONS),
    **dict.fromkeys(("equivalents", "seconds"), MOST_SECONDS),
    "margin_stderr": LARGEST_ERROR,
}


def _schema(top: bool) -> Any:
    import pyarrow as pa

    columns = {
        pa.string(): ("sample_id", "error", "group", "decided_by"),
        pa.int64(): ("label", "prediction", "evaluations", "linearisations"),
        pa.float64(): ("margin", "margin_stderr", "confidence", "equivalents", "seconds"),
        pa.bool_(): ("in_candidates", "image_right", "group_right"),
        pa.list_(pa.list_(pa.float64())): ("top",) if top else (),
    }
    return pa.schema([(name, kind) for kind, names in columns.items() for name in names])


def to_table(records: Sequence[Any], top: bool = True) -> Any:
    """Return records as a table with the columns of a journal."""
    import pyarrow as pa

    schema = _schema(top)
    rows = [{f.name: _as(f.type, record.get(f.name)) for f in schema} for record in records]
    return pa.Table.from_pylist(rows, schema)


def _as(kind: Any, value: Any) -> Any:
    """Return a value with integers as floats in a column of doubles: Arrow refuses large ones."""
    if isinstance(value, list):
        return [_as(kind.value_type, item) for item in value]
    return float(value) if isinstance(value, int) and str(kind) == "double" else value
