"""The images of a run as a table, with one row per decided image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.running.decider import strategy_of
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
