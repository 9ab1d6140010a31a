"""The published results' rows that come with the package, for a place without the repository."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.boards.rows import LeaderboardRow, Rows
from bench.store.fields import to_json

FILE = Path("bench", "boards", "published.json")  # in a clone of the repository


def shipped_rows(dataset: str | None = None) -> list[LeaderboardRow]:
    """Return the rows as `leaderboard` gave them when they were published, of a dataset or of all.

    Their runs are not here (`path` is None), and so no test can rank them anew.
    """
    text = files("bench.boards").joinpath(FILE.name).read_text("utf-8")
    rows = [LeaderboardRow.model_validate(row) for row in json.loads(text)]
    return [row for row in rows if dataset in (None, row.dataset)]


def shipped_row(run_id: str) -> LeaderboardRow | None:
    """Return the row of a published run; None: there is none of this id."""
    return next((row for row in shipped_rows() if row.run_id == run_id), None)


def as_shipped(rows: Rows) -> str:
    """Return the file's content for the rows of the published results."""
    return to_json([{**row.plain(), "path": None} for row in rows])


def not_among(shipped: Rows, rows: Rows) -> list[LeaderboardRow]:
    """Return the shipped rows that are not among `rows`."""
    here = {_key(row) for row in rows}
    return [row for row in shipped if _key(row) not in here]


def _key(row: LeaderboardRow) -> tuple[Any, ...]:
    return row.source, row.dataset, row.split, row.backbone, row.n_samples
