"""What became of a run's images, one column per field: 200,000 images are read in a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import DECIDED_BY
from bench.machine.files import regular_file
from bench.store.arrow import indices, strings, truths, values
from bench.store.documents import Manifest
from bench.store.journal import JOURNAL, read_journal
from bench.store.records import Record, is_record

FAILED = -1  # the prediction of a sample that failed: no class, so it counts as wrong
NOBODY = -2  # the runner-up where there is none; no class, and no failed sample either


@dataclass(frozen=True)
class Decisions:
    """Decided images; every column has their number n as its length.

    Attributes:
        sample_ids: pyarrow strings.
        labels: int64, the true class.
        predictions: int64, -1 where the sample failed.
        margins: float64, the runner-up's score less the winner's; NaN where unknown.
        margin_stderr: float64, the standard error of the margin; NaN where unknown.
        confidence: float64; NaN where unknown.
        evaluations: int64.
        linearisations: int64, draws linearised.
        equivalents: float64, what both cost, in evaluations.
        seconds: float64, of scoring.
        failed: bool.
        in_top5: bool, whether the true class is among the five best; None where it was not read.
        runner_up: int64, the second best class, -2 where there is none; None likewise.
        in_candidates: bool, whether the true class was among the candidates; None where all classes
            were.
        groups: pyarrow strings, null where a sample has no group; None where none has one.
        image_right: bool, whether an item's images are right; None where none of them compares.
        group_right: bool, whether all of an item is right; None likewise.
        decided_by: pyarrow strings, what ended each image, null where nothing says so; None where
            nothing says so of any.
    """

    sample_ids: Any
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    margins: NDArray[np.float64]
    margin_stderr: NDArray[np.float64]
    confidence: NDArray[np.float64]
    evaluations: NDArray[np.int64]
    linearisations: NDArray[np.int64]
    equivalents: NDArray[np.float64]
    seconds: NDArray[np.float64]
    failed: NDArray[np.bool_]
    in_top5: NDArray[np.bool_] | None = None
    runner_up: NDArray[np.int64] | None = None
    in_candidates: NDArray[np.bool_] | None = None
    groups: Any = None
    image_right: NDArray[np.bool_] | None = None
    group_right: NDArray[np.bool_] | None = None
    decided_by: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, bool [n]; a failed sample is wrong."""
        return np.equal(self.labels, self.predictions)


Decided = Decisions | Sequence[Record]  # what the analysis takes


def read_decisions(path: Path, manifest: Manifest, top: bool = False) -> Decisions:
    """Read what became of the samples that a run's manifest asks for, in its order.

    Args:
        path: the run's folder.
        manifest: its manifest.
        top: read `in_top5` and `runner_up` as well, for half as much time again.
    """
    import pyarrow.compute as pc

    table = read_table(path, len(manifest.classes), top)
    asked, there = strings(manifest.samples), table["sample_id"].combine_chunks()
    if not asked.equals(there):
        table = table.take(pc.index_in(asked, value_set=there).drop_null())
    return _from_table(table)


def join_decisions(parts: Sequence[Decisions], order: NDArray[np.int64]) -> Decisions:
    """Return the images of several parts as one, reordered: the i-th is `order[i]` of all."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for field in fields(Decisions):
        found = [getattr(part, field.name) for part in parts]
        if all(column is None for column in found):
            continue
        if field.name in ("sample_ids", "groups"):
            whole = [
                pa.nulls(len(p), pa.string()) if c is None else c
                for p, c in zip(parts, found, strict=True)
            ]
            chunks = [chunk for c in whole for chunk in getattr(c, "chunks", [c])]
            columns[field.name] = pa.chunked_array(chunks).take(indices(order)).combine_chunks()
        else:
            whole = [
                np.zeros(len(p), bool) if c is None else c
                for p, c in zip(parts, found, strict=True)
            ]
            columns[field.name] = np.concatenate(whole)[order]
    return Decisions(**columns)


def as_decisions(decided: Decided) -> Decisions:
    """Return records as columns; columns as they are."""
    return decided if isinstance(decided, Decisions) else _from_table(_to_table(decided))


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
    table = _quickly(file, n_classes, top) if file else _to_table([], top)
    if table is None:
        records = read_journal(path / JOURNAL, lambda value: is_record(value, n_classes))
        table = _to_table(list({r["sample_id"]: r for r in records}.values()), top)
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
    if not np.isfinite(values(table["margin"], 0)).all():
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
_LARGEST = float(np.finfo(np.float64).max)
_AMOUNTS = dict.fromkeys(
    ("evaluations", "linearisations", "equivalents", "seconds", "margin_stderr"), _LARGEST
)
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


def _to_table(records: Sequence[Any], top: bool = True) -> Any:
    import pyarrow as pa

    schema = _schema(top)
    return pa.table(
        {field.name: pa.array([r.get(field.name) for r in records], field.type) for field in schema}
    )


def _from_table(table: Any) -> Decisions:
    labels = values(table["label"])
    in_top5, runner_up = _from_top(table, labels) if "top" in table.column_names else (None, None)
    return Decisions(
        sample_ids=table["sample_id"].combine_chunks(),
        labels=labels,
        predictions=values(table["prediction"], FAILED),
        margins=values(table["margin"], np.nan),
        margin_stderr=values(table["margin_stderr"], np.nan),
        confidence=values(table["confidence"], np.nan),
        evaluations=values(table["evaluations"]),
        linearisations=values(table["linearisations"], 0),
        equivalents=_equivalents(table),
        seconds=values(table["seconds"]),
        failed=truths(table["error"].is_valid()),
        in_top5=in_top5,
        runner_up=runner_up,
        in_candidates=_answers(table["in_candidates"]),
        groups=None if table["group"].null_count == len(table) else table["group"],
        image_right=_answers(table["image_right"]),
        group_right=_answers(table["group_right"]),
        decided_by=None if table["decided_by"].null_count == len(table) else table["decided_by"],
    )


def _answers(column: Any) -> NDArray[np.bool_] | None:
    """Return a column of answers, a failed sample's wrong; None where there is none."""
    if column.null_count == len(column):
        return None
    return truths(column.fill_null(False))


def _from_top(table: Any, labels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whether the label is among the first five of `top`, and the second class of it."""
    entries = table["top"].combine_chunks()  # [n] lists of [class, score, draws]
    sizes = values(entries.value_lengths(), 0)
    start = np.cumsum(sizes) - sizes  # of each image's entries among all of them
    pairs = entries.flatten()
    lengths = values(pairs.value_lengths())
    classes = values(pairs.flatten(), np.nan)[np.cumsum(lengths) - lengths]
    in_top5 = np.zeros(len(labels), dtype=bool)
    runner_up = np.full(len(labels), NOBODY, dtype=np.int64)
    for place in range(min(5, int(sizes.max(initial=0)))):
        has = sizes > place
        found = classes[start[has] + place]
        in_top5[has] |= found == labels[has]
        if place == 1:
            runner_up[has] = found
    return in_top5, runner_up


def _equivalents(table: Any) -> NDArray[np.float64]:
    """Without linearisations, an image's equivalents are its evaluations."""
    import pyarrow.compute as pc

    return values(pc.coalesce(table["equivalents"], table["evaluations"].cast("double")))
