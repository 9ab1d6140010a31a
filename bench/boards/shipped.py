"""The published results' rows that come with the package, for a place without the repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.store.folder import to_json

Row = dict[str, Any]

FILE = Path("bench", "boards", "published.json")  # in a clone of the repository


def shipped_rows(dataset: str | None = None) -> list[Row]:
    """Return the rows as `leaderboard` gave them when they were published, of a dataset or of all.

    Their runs are not here (`path` is None), and so no test can rank them anew.
    """
    text = files("bench.boards").joinpath(FILE.name).read_text("utf-8")
    rows: list[Row] = json.loads(text)
    return [row for row in rows if dataset in (None, row["dataset"])]


def as_shipped(rows: Sequence[Row]) -> str:
    """Return the file's content for the rows of the published results."""
    return to_json([{**row, "path": None} for row in rows])


def not_among(shipped: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return the shipped rows that are not among `rows`."""
    here = {_key(row) for row in rows}
    return [row for row in shipped if _key(row) not in here]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("source", "dataset", "split", "backbone", "n_samples"))
