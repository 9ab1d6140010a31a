"""A short run of the shipped digits, as a command, and what of its records does not vary."""

from pathlib import Path
from typing import Any

import pytest

from bench.store.folder import read_records

SCHEDULE = ["--strategy", "adaptive", "--set", "samples=2,6", "--set", "keep=3,1"]

LIMIT = 12  # images


def command(pipeline: str, results: Path, *more: object) -> list[str]:
    parts = ["run", "digits", "--backbone", pipeline, *SCHEDULE, "--results", results, *more]
    return [str(part) for part in parts]


def timeless(run: Path) -> dict[str, Any]:
    """The records without their times; errors to float32's precision.

    Threads split a batch by position, so that a cell's last bits (1e-8 of a score) depend on
    where in a batch it stands, and after a kill it stands elsewhere.
    """
    records = sorted(read_records(run).items())
    return {key: {k: v for k, v in r.items() if k != "seconds"} for key, r in records}


def same(found: Any, wanted: Any) -> bool:
    """Equal, numbers with a fraction to 1e-6."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == (pytest.approx(wanted, abs=1e-6) if isinstance(wanted, float) else wanted))
