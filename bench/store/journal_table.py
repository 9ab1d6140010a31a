"""The journal as a table: its lines are parsed by pyarrow, and checked a column at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import DECIDED_BY
from bench.machine.files import regular_file
from bench.store.arrow import indices, values
from bench.store.journal import JOURNAL, read_journal
from bench.store.records import LARGEST_ERROR, MOST_EVALUATIONS, MOST_SECONDS, is_record


def read_table(path: Path, n_classes: int, top: bool = False) -> Any:
    """Return the latest record of each sample as a pyarrow table, in the order written.

    A file with a damaged line is read line by line, slower; see `read_journal`.

    Args:
        path: the run's folder.
        n_classes: of the run.
        top: read the column `top` as well.

    Raises:
        UserError: the journal is not a regular file inside the folder.
    """
    import pyarrow.compute as pc

    file = regular_file(path, JOURNAL)
    table = _quickly(file, n_classes, top) if file else to_table([], top)
    if table is None:
        records = read_journal(path / JOURNAL, lambda value: is_record(value, n_classes))
        table = to_table(list({r["sample_id"]: r for r in records}.values()), top)
    if pc.count_distinct(table["sample_id"]).as_py() < len(table):  # samples were tried again
        table = table.take(indices(_last_of_each(table["sample_id"])))
    return table


def _quickly(file: Path, n_classes: int, top: bool) -> Any:
    """Return the journal's whole lines as a table; None where one of them is no sound record."""
    import pyarrow as pa
    import pyarrow.json as pj

    options = pj.ParseOptions(explicit_schema=_schema(top), unexpected_field_behavior="ignore")
    small = file.stat().st_size < _ONE_BLOCK  # threads cost more than they save
    try:
        with pa.memory_map(str(file)) as source:
            table = pj.read_json(
                _whole_lines(source.read_buffer()),
                read_options=pj.ReadOptions(use_threads=not small),
                parse_options=options,
            )
    except (OSError, ValueError, pa.ArrowException):  # an empty file, a damaged line
        return None
    return table if _sound(table, n_classes) else None


def _sound(table: Any, n_classes: int) -> bool:
    """Tell whether every row is what `is_record` takes, without looking at one at a time."""
    import pyarrow.compute as pc

    if any(table[name].null_count for name in _REQUIRED):
        return False
    if table["prediction"].null_count:
        neither = pc.and_(table["prediction"].is_null(), table["error"].is_null())
        if pc.any(neither).as_py():
            return False
    ranges = {"label": n_classes - 1, "prediction": n_classes - 1, "confidence": 1, **_AMOUNTS}
    for name, most in ranges.items():
        found = values(table[name], 0)
        if len(found) and not (found.min() >= 0 and found.max() <= most):
            return False
    if not (np.abs(values(table["margin"], 0)) <= LARGEST_ERROR).all():
        return False
    # Not `pa.array` and `is_in`: pyarrow would import pandas for it.
    if not set(pc.unique(table["decided_by"]).to_pylist()) <= {None, *DECIDED_BY}:
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


_ONE_BLOCK = 1 << 20  # bytes that pyarrow parses at a time


_AMOUNTS = {
    **dict.fromkeys(("evaluations", "linearisations"), MOST_EVALUATIONS),
    **dict.fromkeys(("equivalents", "seconds"), MOST_SECONDS),
    "margin_stderr": LARGEST_ERROR,
}


_REQUIRED = ("sample_id", "label", "evaluations", "seconds")


def _schema(top: bool) -> Any:
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "sample_id": pa.string(),
        "label": pa.int64(),
        "prediction": pa.int64(),
        "margin": pa.float64(),
        "margin_stderr": pa.float64(),
        "confidence": pa.float64(),
        "evaluations": pa.int64(),
        "linearisations": pa.int64(),
        "equivalents": pa.float64(),
        "seconds": pa.float64(),
        "error": pa.string(),
        "in_candidates": pa.bool_(),
        "group": pa.string(),
        "image_right": pa.bool_(),
        "group_right": pa.bool_(),
        "decided_by": pa.string(),
    }
    if top:
        kinds["top"] = pa.list_(pa.list_(pa.float64()))
    return pa.schema(list(kinds.items()))


def _whole_lines(data: Any) -> Any:
    """Return a reader of the buffer up to its last line's end; a torn last line is not there."""
    import pyarrow as pa

    end = len(data)
    while end:
        start = max(0, end - 65536)
        newline = data.slice(start, end - start).to_pybytes().rfind(b"\n")
        if newline >= 0:
            return pa.BufferReader(data.slice(0, start + newline + 1))
        end = start
    raise ValueError("no whole line")


def _last_of_each(column: Any) -> NDArray[np.int64]:
    codes = values(column.combine_chunks().dictionary_encode().indices)[::-1]
    return np.sort(len(codes) - 1 - np.unique(codes, return_index=True)[1])


def to_table(records: Sequence[Any], top: bool = True) -> Any:
    """Return records as a table with the columns of a journal."""
    import pyarrow as pa

    schema = _schema(top)
    return pa.table(
        {
            field.name: pa.array([_as(field.type, r.get(field.name)) for r in records], field.type)
            for field in schema
        }
    )


def _as(kind: Any, value: Any) -> Any:
    """Return a value with whole numbers as floats where these are wanted: Arrow takes few."""
    if isinstance(value, list):
        return [_as(kind.value_type, item) for item in value]
    return float(value) if isinstance(value, int) and str(kind) == "double" else value
