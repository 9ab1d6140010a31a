"""The journal as a table, parsed by pyarrow and checked column by column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.strategy import DECIDED_BY
from bench.machine.files import regular_file
from bench.store.arrow import indices, values
from bench.store.journal import JOURNAL, complete_length, read_lines
from bench.store.records import LARGEST_ERROR, MOST_EVALUATIONS, MOST_SECONDS, is_record


def read_table(path: Path, n_classes: int, top: bool = False) -> Any:
    """Return the latest record of each sample as a pyarrow table, in the order written.

    A file with a damaged line is read line by line, which is slower; see `read_lines`. With
    `top`, the column `top` is read as well. UserError: it is not a regular file inside the folder.
    """
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
    return pa.table(
        {
            field.name: pa.array([_as(field.type, r.get(field.name)) for r in records], field.type)
            for field in schema
        }
    )


def _as(kind: Any, value: Any) -> Any:
    """Return a value with integers as floats where the type is double: Arrow converts few."""
    if isinstance(value, list):
        return [_as(kind.value_type, item) for item in value]
    return float(value) if isinstance(value, int) and str(kind) == "double" else value
