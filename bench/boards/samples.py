"""The images of a run as a table: one row each, with the names of their classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from bench.boards.text import csv_cell
from bench.store.documents import Manifest
from bench.store.folder import asked_records


class SampleRow(TypedDict):
    """One decided image; a failed one has no prediction, and its error in words.

    The column `stability` holds the record's `confidence`, under the name that it has had: it is
    no probability that the full sweep would decide the same.
    """

    sample_id: str
    label: str
    prediction: str | None
    correct: bool
    score: float | None
    margin: float | None
    margin_stderr: float | None
    stability: float | None
    evaluations: int
    seconds: float
    error: str | None


_KINDS = {
    "sample_id": "string",
    "label": "string",
    "prediction": "string",
    "correct": "bool",
    "score": "double",
    "margin": "double",
    "margin_stderr": "double",
    "stability": "double",
    "evaluations": "int64",
    "seconds": "double",
    "error": "string",
}  # of parquet's columns
COLUMNS = tuple(_KINDS)


def sample_rows(path: Path, manifest: Manifest) -> Iterator[SampleRow]:
    """Yield the rows of the images that a manifest asks for and that are decided, in its order."""
    classes, known = manifest.classes, manifest.margin_errors_known
    for record in asked_records(path, manifest):
        said = record["prediction"]
        yield SampleRow(
            sample_id=record["sample_id"],
            label=classes[record["label"]],
            prediction=None if said is None else classes[said],
            correct=said == record["label"],
            score=record["score"],
            margin=record["margin"],
            margin_stderr=record["margin_stderr"] if known else None,
            stability=record["confidence"] if known else None,
            evaluations=record["evaluations"],
            seconds=record["seconds"],
            error=record["error"],
        )


def to_csv(path: Path, manifest: Manifest) -> str:
    """Return the table as CSV, safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sample_rows(path, manifest):
        writer.writerow([csv_cell(value) for value in row.values()])
    return out.getvalue()


def to_parquet(path: Path, manifest: Manifest) -> bytes:
    """Return the table as a parquet file; its metadata names the run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(sample_rows(path, manifest))
    columns = {name: [row[name] for row in rows] for name in COLUMNS}  # type: ignore[literal-required]  # the keys of a row
    kinds = [_KINDS[name] for name in COLUMNS]
    schema = pa.schema(list(zip(COLUMNS, map(pa.type_for_alias, kinds), strict=True)))
    table = pa.table(columns, schema).replace_schema_metadata({"run_id": manifest.run_id})
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()
