"""The stored runs, complete or not, as `bench list runs` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from bench.errors import UserError
from bench.stats.differences import Settings, differing, run_settings
from bench.store.folder import list_runs
from bench.store.runs import StoredRun, list_shards, read_runs


class InventoryRow(BaseModel):
    """One run folder. Of one that cannot be read, only id, status, path and error are known."""

    run_id: str
    status: Literal["complete", "failed_samples", "incomplete", "unreadable"]
    dataset: str | None = None
    split: str | None = None
    backbone: str | None = None
    strategy: str | None = None
    differs: Settings = {}
    """The settings that are not the same in all runs of this dataset, backbone and strategy."""
    shard: str | None = None
    """Of a part of a run, which one."""
    done: int | None = None
    """Images decided."""
    total: int | None = None
    """Images asked for."""
    failed: int | None = None
    """Images that failed, of the decided ones."""
    accuracy: float | None = None
    """Of the decided images; None: there is none."""
    created: str | None = None
    path: str
    error: str | None = None


def stored_runs(folder: Path) -> list[InventoryRow]:
    """Return the runs at any depth below a folder, in the order of their paths.

    Shards are among them until they are merged.
    """
    rows: list[InventoryRow] = []
    settings: list[tuple[InventoryRow, Settings]] = []

    def left_out(path: Path, error: UserError) -> None:
        rows.append(unreadable(path, error))

    for run in read_runs(run_folders(folder), left_out):
        row = row_of(run)
        rows.append(row)
        settings.append((row, run_settings(run.manifest)))
    tell_apart(settings)
    return rows


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of runs and of shards at any depth below a folder, by path."""
    return sorted([*list_runs(folder), *list_shards(folder)])


def tell_apart(rows: Iterable[tuple[InventoryRow, Settings]]) -> None:
    """Say in each row in which settings it differs from those like it."""
    alike: dict[tuple[str | None, ...], list[tuple[InventoryRow, Settings]]] = {}
    for row, settings in rows:
        kind = (row.dataset, row.split, row.backbone, row.strategy)
        alike.setdefault(kind, []).append((row, settings))
    for group in alike.values():
        found = differing([settings for _, settings in group])
        for (row, _), differs in zip(group, found, strict=True):
            row.differs = differs


def unreadable(path: Path, error: UserError) -> InventoryRow:
    """Return the row of a run that cannot be read."""
    return InventoryRow(run_id=path.name, status="unreadable", path=str(path), error=str(error))


def row_of(run: StoredRun) -> InventoryRow:
    """Return the row of a run, without the settings that tell it apart."""
    manifest, summary = run.manifest, run.summary
    row = InventoryRow(
        run_id=manifest.run_id,
        status="incomplete",
        dataset=manifest.dataset.name,
        split=manifest.dataset.split,
        backbone=manifest.backbone.name,
        strategy=manifest.strategy.name,
        shard=str(manifest.part) if manifest.part else None,
        total=manifest.total,
        created=manifest.created,
        path=str(run.path),
    )
    if summary is not None and run.complete:
        row.status = "failed_samples" if summary.failed_samples else "complete"
        row.done, row.failed = manifest.total, summary.failed_samples
        row.accuracy = summary.metrics.accuracy
    else:
        decided = run.decided()
        row.done, row.failed = len(decided), int(decided.failed.sum())
        row.accuracy = float(decided.correct.mean()) if len(decided) else None
    return row
