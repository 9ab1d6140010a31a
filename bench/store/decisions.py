"""What became of a run's images, a column a field: 200,000 images are read in a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.store.documents import Manifest
from bench.store.journal import read_journal
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
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_table(path / "samples.jsonl", len(manifest.classes), top)
    row = pc.index_in(pa.array(manifest.samples, pa.string()), value_set=table["sample_id"])
    return _from_table(table.take(row.drop_null()))


def as_decisions(decided: Decided) -> Decisions:
    """Return records as columns; columns as they are."""
    return decided if isinstance(decided, Decisions) else _from_table(_to_table(decided))


def read_table(path: Path, n_classes: int, top: bool = False) -> Any:
    """Return the latest record of each sample as a pyarrow table, the last written one first.

    A file with a damaged line is read line by line, slower; see `read_journal`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json as pj

    schema = _schema(top)
    try:
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
            options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
            table = pj.read_json(_whole_lines(data), parse_options=options)
        good = all(table[name].null_count == 0 for name in _REQUIRED)
        for name in ("label", "prediction"):
            ends = pc.min_max(table[name]).as_py()
            good &= ends["min"] is None or 0 <= ends["min"] <= ends["max"] < n_classes
    except (
        OSError,
        ValueError,
    ):  # no file, an empty one, a damaged line; pyarrow's are ValueErrors
        good = False
    if not good:
        records = read_journal(path, lambda value: is_record(value, n_classes))
        table = _to_table(list({r["sample_id"]: r for r in records}.values()), top)
    table = table.take(pa.array(np.arange(len(table))[::-1]))
    if len(pc.unique(table["sample_id"])) < len(table):  # samples tried again: the latest counts
        table = table.take(_first_of_each(table["sample_id"]))
    return table


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


def _first_of_each(column: Any) -> NDArray[np.int64]:
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.sort(np.unique(codes, return_index=True)[1])


def _to_table(records: Sequence[Any], top: bool = True) -> Any:
    import pyarrow as pa

    schema = _schema(top)
    return pa.table(
        {field.name: pa.array([r.get(field.name) for r in records], field.type) for field in schema}
    )


def _from_table(table: Any) -> Decisions:
    labels = table["label"].to_numpy()
    in_top5, runner_up = _from_top(table, labels) if "top" in table.column_names else (None, None)
    return Decisions(
        sample_ids=table["sample_id"].combine_chunks(),
        labels=labels,
        predictions=table["prediction"].fill_null(FAILED).to_numpy(),
        margins=_floats(table["margin"]),
        margin_stderr=_floats(table["margin_stderr"]),
        confidence=_floats(table["confidence"]),
        evaluations=table["evaluations"].to_numpy(),
        linearisations=table["linearisations"].fill_null(0).to_numpy(),
        equivalents=_equivalents(table),
        seconds=_floats(table["seconds"]),
        failed=table["error"].is_valid().to_numpy(),
        in_top5=in_top5,
        runner_up=runner_up,
    )


def _from_top(table: Any, labels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whether the label is among the first five of `top`, and the second class of it."""
    entries = table["top"].combine_chunks()  # [n] lists of [class, score, draws]
    sizes = entries.value_lengths().fill_null(0).to_numpy()
    start = np.cumsum(sizes) - sizes  # of each image's entries among all of them
    pairs = entries.flatten()
    classes = pairs.flatten().to_numpy(zero_copy_only=False)[
        np.cumsum(lengths := pairs.value_lengths().to_numpy()) - lengths
    ]
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

    return np.asarray(pc.coalesce(table["equivalents"], table["evaluations"].cast("double")))


def _floats(column: Any) -> NDArray[np.float64]:
    return np.asarray(column.fill_null(np.nan).to_numpy())
