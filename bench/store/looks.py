"""Looks: how often a split was evaluated. A test set that is looked at often wears out.

Whoever tries many settings on one test split, and reports the best, reports some luck. A look is a
finished run on the split with settings of its own; the same run again is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.errors import UserError
from bench.store.documents import Manifest
from bench.store.folder import list_runs
from bench.store.runs import read_runs

FOR_CHOICES = ("train", "training", "val", "valid", "validation", "dev", "development")

# The dataset, its split, and the fingerprint of its data.
SplitKey = tuple[str, str, str]


def split_of(manifest: Manifest) -> SplitKey:
    """Return what looks are counted by."""
    data = manifest.identity.dataset
    return data.name, data.split, data.fingerprint


def is_test(split: str) -> bool:
    """Tell a split that results are reported on from one that settings are chosen on."""
    return split.lower() not in FOR_CHOICES


def count_looks(folders: Iterable[Path]) -> dict[SplitKey, int]:
    """Return how many different runs are finished on each test split, in some folders of runs."""
    seen: dict[SplitKey, set[str]] = {}

    def left_out(path: Path, error: UserError) -> None:
        """What cannot be read is no look that can be counted."""

    for run in read_runs((p for f in folders if f.is_dir() for p in list_runs(f)), left_out):
        if run.summary is not None and is_test(run.manifest.dataset.split):
            seen.setdefault(split_of(run.manifest), set()).add(run.manifest.run_id)
    return {key: len(runs) for key, runs in seen.items()}
