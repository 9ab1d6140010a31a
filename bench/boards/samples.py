"""The images of a run as a table: one row per image, with the names of their classes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.boards.text import csv_text
from bench.running.verbs.agreement import strategy_of
from bench.store.documents import Manifest
from bench.store.folder import asked_records

SampleRow = dict[str, Any]
"""One decided image, by column; a failed one has no prediction, and its error in words."""

SAMPLE_COLUMNS = {
    "sample_id": "string",
    "label": "string",
    "prediction": "string",
    "correct": "bool",
    "score": "double",
    "margin": "double",
    "margin_stderr": "double",
    # The record's `confidence`, which is no probability that the full sweep would decide the same;
    # only of fixed draws, since a strategy that stops does so where its margin is large.
    "stability": "double",
    "evaluations": "int64",
    "seconds": "double",
    "error": "string",
}
"""Name of each column → its type in Arrow."""


def sample_rows(path: Path, manifest: Manifest) -> Iterator[SampleRow]:
    """Yield the rows of the decided images that a manifest asks for, in its order."""
    classes, errors_known = manifest.classes, manifest.margin_errors_known
    strategy = strategy_of(manifest)
    unbiased = errors_known and strategy is not None and strategy.same_draws
    for record in asked_records(path, manifest):
        prediction = record["prediction"]
        row = {
            **record,
            "label": classes[record["label"]],
            "prediction": None if prediction is None else classes[prediction],
            "correct": prediction == record["label"],
            "margin_stderr": record["margin_stderr"] if errors_known else None,
            "stability": record["confidence"] if unbiased else None,
        }
        yield {name: row[name] for name in SAMPLE_COLUMNS}


def to_csv(path: Path, manifest: Manifest) -> str:
    """Return the table as CSV, safe to open in a spreadsheet."""
    return csv_text(SAMPLE_COLUMNS, (row.values() for row in sample_rows(path, manifest)))


def to_parquet(path: Path, manifest: Manifest) -> bytes:
    """Return the table as a parquet file; its metadata names the run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [(name, pa.type_for_alias(kind)) for name, kind in SAMPLE_COLUMNS.items()]
    schema = pa.schema(fields, metadata={"run_id": manifest.run_id})
    out = io.BytesIO()
    rows = list(sample_rows(path, manifest))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, compression="zstd")
    return out.getvalue()
