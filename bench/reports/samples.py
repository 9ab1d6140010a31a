"""Export the images of a run as a table, with one row per decided image."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.reports.text import csv_text
from bench.running.second import strategy_of
from bench.store.documents import Manifest
from bench.store.folder import requested_records

SampleRow = dict[str, Any]
"""One decided image, by column. If it failed, `prediction` is None and `error` is its message."""

SAMPLE_COLUMNS = {
    "sample_id": "string",
    "label": "string",
    "prediction": "string",
    "correct": "bool",
    "score": "double",
    "margin": "double",
    "margin_stderr": "double",
    # The `confidence` of the record. It is None for strategies that choose when to stop: they stop
    # when the margin is large, which biases it.
    "stability": "double",
    "evaluations": "int64",
    "seconds": "double",
    "error": "string",
}
"""Column → its Arrow type."""


def sample_rows(path: Path, manifest: Manifest) -> Iterator[SampleRow]:
    """Yield the rows of the decided images, in the order of the manifest's samples."""
    classes, has_errors = manifest.classes, manifest.margin_errors_known
    strategy = strategy_of(manifest)
    unbiased = has_errors and strategy is not None and strategy.same_draws
    for record in requested_records(path, manifest):
        prediction = record["prediction"]
        row = {
            **record,
            "label": classes[record["label"]],
            "prediction": None if prediction is None else classes[prediction],
            "correct": prediction == record["label"],
            "margin_stderr": record["margin_stderr"] if has_errors else None,
            "stability": record["confidence"] if unbiased else None,
        }
        yield {name: row[name] for name in SAMPLE_COLUMNS}


def to_csv(path: Path, manifest: Manifest) -> str:
    """Return the table as CSV that is safe to open in a spreadsheet."""
    return csv_text(SAMPLE_COLUMNS, (row.values() for row in sample_rows(path, manifest)))


def to_parquet(path: Path, manifest: Manifest) -> bytes:
    """Return the table as the content of a parquet file, with the run's id in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [(name, pa.type_for_alias(kind)) for name, kind in SAMPLE_COLUMNS.items()]
    schema = pa.schema(fields, metadata={"run_id": manifest.run_id})
    out = io.BytesIO()
    rows = list(sample_rows(path, manifest))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, compression="zstd")
    return out.getvalue()
