"""`samples.jsonl`, the append-only journal of a run: writing lines, and reading them or a table.

Incomplete and damaged lines are skipped by readers.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np
from pydantic_core import from_json

from bench.contracts.strategy import DECIDED_BY
from bench.errors import warn_user
from bench.machine.files import regular_file
from bench.machine.libraries import pa, pc, pj
from bench.store.arrow import indices, values
from bench.store.records import MAX_ERROR, MAX_EVALUATIONS, MAX_SECONDS, SWEEP, is_record

JOURNAL = "samples.jsonl"
MAX_LINE_BYTES = 10_000_000  # so that a file without line ends cannot fill memory
SYNC_SECONDS = 2.0  # minimum time between two calls of fsync
RESUME = "damaged and ignored. The same `bench run` scores only the images of damaged lines again."


def has_id(value: Any) -> bool:
    """Return whether a line's value is an object with a sample id."""
    return isinstance(value, dict) and isinstance(value.get("sample_id"), str)


def read_lines(
    path: Path, is_valid: Callable[[Any], bool] = has_id, problem: str = RESUME
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield offset (bytes), length (bytes) and record of each valid line; none if there is no file.

    A warning names the invalid lines and says that they are `problem`. A last one without a line
    end is not named, because a running or killed process leaves it. Raises UserError if it is not a
    regular file inside its folder.
    """
    file = regular_file(path.parent, path.name)
    if file is None:
        return
    damaged, start = [], 0
    with file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), start=1):
            try:
                record = from_json(line, allow_inf_nan=False)
            except ValueError:  # not JSON, not UTF-8 or nested too deeply
                record = None
            if is_valid(record):
                yield start, len(line), record
            elif line.endswith(b"\n") and line.strip():
                damaged.append(number)
            start += len(line)
    if damaged:
        lines_are = "lines {} are" if len(damaged) > 1 else "line {} is"
        numbers = ", ".join(map(str, damaged[:5])) + " and others" * (len(damaged) > 5)
        warn_user(f"{path}: {lines_are.format(numbers)} {problem}")


def complete_length(file: BinaryIO) -> int:
    """Return the number of bytes up to the end of the last complete line. Moves the position."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def covered(path: Path, length: int | None = None) -> tuple[int, str]:
    """Return the length in bytes and the hash of a run's first lines; None: all complete ones."""
    file = regular_file(path, JOURNAL)
    if file is None:
        return 0, sha256().hexdigest()
    if length is None:
        with file.open("rb") as lines:
            length = complete_length(lines)
    status = file.stat()
    return length, _hash_of_start(file, length, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=64)  # the side files of a run mostly cover the same lines
def _hash_of_start(file: Path, length: int, *version: int) -> str:
    start = sha256()
    with file.open("rb") as lines:
        while length > 0 and (block := lines.read(min(length, _BLOCK_BYTES))):
            start.update(block)
            length -= len(block)
    return start.hexdigest()


class Journal:
    """Append-only file of JSON lines. Opening it removes an incomplete last line.

    Each line reaches the operating system before `append` returns, so a killed process loses none.
    fsync, against power loss, takes milliseconds, so it follows every few seconds and on closing.
    """

    def __init__(self, path: Path) -> None:
        self._synced, self._clean = monotonic(), True
        self._file = path.open("ab+", buffering=0)  # so that a failed write leaves no buffered data
        complete = complete_length(self._file)
        if complete != self._file.seek(0, os.SEEK_END):  # a process was killed while it wrote
            self._file.truncate(complete)

    def append(self, record: Any) -> None:
        """Write one line, completely or not at all (OSError if the disk is full or gone)."""
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
                # File systems without fsync raise these.
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                    raise
        self._synced, self._clean = monotonic(), True

    def close(self) -> None:
        """Sync and close the file. Errors of the last fsync are ignored."""
        with suppress(OSError):
            self._sync()
        self._file.close()


def read_table(path: Path, n_classes: int, top: bool = False) -> Any:
    """Return the latest record of each sample as a pyarrow table, empty without a journal.

    With `top`, it has the column `top`: the best classes of each image.
    """
    file = regular_file(path, JOURNAL)
    table = _parsed(file, n_classes, top) if file else to_table([], top)
    if table is None:  # line by line, which is slower but can skip damaged lines
        lines = read_lines(path / JOURNAL, lambda value: is_record(value, n_classes))
        table = to_table(list({r["sample_id"]: r for _, _, r in lines}.values()), top)
    if pc.count_distinct(table["sample_id"]).as_py() < len(table):  # failed samples were retried
        codes = values(table["sample_id"].combine_chunks().dictionary_encode().indices)[::-1]
        last = len(codes) - 1 - np.unique(codes, return_index=True)[1]
        table = table.take(indices(np.sort(last)))
    return table


def _parsed(file: Path, n_classes: int, top: bool) -> Any:
    """Return the complete lines of the journal as a table, None if one is not a valid record."""
    options = pj.ParseOptions(explicit_schema=_schema(top), unexpected_field_behavior="ignore")
    try:
        with file.open("rb") as lines:
            length = complete_length(lines)
        large = length >= _BLOCK_BYTES  # threads slow down the parsing of small files
        with pa.memory_map(str(file)) as source:
            table = pj.read_json(
                pa.BufferReader(source.read_buffer(length)),
                read_options=pj.ReadOptions(use_threads=large),
                parse_options=options,
            )
    except (OSError, ValueError, pa.ArrowException):  # an empty file, a damaged line
        return None
    return table if _all_records(table, n_classes) else None


def _all_records(table: Any, n_classes: int) -> bool:
    """Return whether all rows are records; a vectorised `is_record`."""
    if any(table[name].null_count for name in _REQUIRED):
        return False
    if table["prediction"].null_count:
        neither = pc.and_(table["prediction"].is_null(), table["error"].is_null())
        if pc.any(neither).as_py():
            return False
    ranges = {"label": n_classes - 1, "prediction": n_classes - 1, "confidence": 1, **_AMOUNTS}
    for name, maximum in ranges.items():
        column = values(table[name], 0)
        if len(column) and not (column.min() >= 0 and column.max() <= maximum):
            return False
    if not (np.abs(values(table["margin"], 0)) <= MAX_ERROR).all():
        return False
    # A set, because pyarrow imports pandas for `pa.array` and `is_in`.
    if not set(pc.unique(table["decided_by"]).to_pylist()) <= {None, SWEEP, *DECIDED_BY}:
        return False
    return "top" not in table.column_names or _is_top(table["top"], n_classes)


def _is_top(column: Any, n_classes: int) -> bool:
    """Return whether all entries of `top` are valid triples [class, score, draws]."""
    triples = column.combine_chunks().flatten()
    numbers = triples.flatten()
    if column.null_count or triples.null_count or len(numbers) != 3 * len(triples):
        return False
    classes = values(numbers, np.nan)[::3]
    integers = (values(triples.value_lengths()) == 3).all() and (classes == classes.round()).all()
    return bool(integers and (classes >= 0).all() and (classes < n_classes).all())


_BLOCK_BYTES = 1 << 20  # default size of pyarrow's blocks, which it parses in parallel
_REQUIRED = ("sample_id", "label", "evaluations", "seconds")
_AMOUNTS = {
    **dict.fromkeys(("evaluations", "linearisations"), MAX_EVALUATIONS),
    **dict.fromkeys(("equivalents", "seconds"), MAX_SECONDS),
    "margin_stderr": MAX_ERROR,
}  # column → maximum


def _schema(top: bool) -> Any:
    columns = {
        pa.string(): ("sample_id", "error", "group", "decided_by"),
        pa.int64(): ("label", "prediction", "evaluations", "linearisations"),
        pa.float64(): ("margin", "margin_stderr", "confidence", "equivalents", "seconds"),
        pa.bool_(): ("in_candidates", "image_right", "group_right"),
        pa.list_(pa.list_(pa.float64())): ("top",) if top else (),
    }
    return pa.schema([(name, type_) for type_, names in columns.items() for name in names])


def to_table(records: Sequence[Any], top: bool = True) -> Any:
    """Return records as a pyarrow table with the same columns as `read_table`."""
    schema = _schema(top)
    rows = [{f.name: _converted(record.get(f.name), f.type) for f in schema} for record in records]
    return pa.Table.from_pylist(rows, schema)


def _converted(value: Any, type_: Any) -> Any:
    """Convert integers to floats for a column of doubles, because pyarrow rejects large ones."""
    if isinstance(value, list):
        return [_converted(item, type_.value_type) for item in value]
    return float(value) if isinstance(value, int) and str(type_) == "double" else value
