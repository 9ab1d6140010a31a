"""The stored runs, complete or not, as `bench list runs` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from bench.boards.settings import differing, run_settings
from bench.errors import UserError
from bench.store.decisions import read_decisions
from bench.store.documents import Manifest
from bench.store.folder import list_runs, read_manifest, read_summary


class StoredRun(BaseModel):
    """One run folder. Of one that cannot be read, only id, status, path and error are known."""

    run_id: str
    status: Literal["complete", "failed_samples", "incomplete", "unreadable"]
    dataset: str | None = None
    split: str | None = None
    backbone: str | None = None
    strategy: str | None = None
    differs: dict[str, Any] = {}
    """The settings that are not the same in all runs of this dataset, backbone and strategy."""
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


def stored_runs(folder: Path) -> list[StoredRun]:
    """Return the runs at any depth below a folder, in the order of their paths."""
    rows: list[StoredRun] = []
    settings: list[dict[str, Any]] = []
    alike: dict[tuple[str | None, ...], list[int]] = {}
    for path in list_runs(folder):
        try:
            manifest = read_manifest(path)
            row, own = _row(path, manifest), run_settings(manifest)
        except UserError as error:
            row, own = _unreadable(path, error), {}
        kind = (row.dataset, row.split, row.backbone, row.strategy)
        alike.setdefault(kind, []).append(len(rows))
        rows.append(row)
        settings.append(own)
    for positions in alike.values():
        found = differing([settings[position] for position in positions])
        for position, differs in zip(positions, found, strict=True):
            rows[position].differs = differs
    return rows


def _row(path: Path, manifest: Manifest) -> StoredRun:
    summary, total = read_summary(path), len(manifest.samples)
    described: dict[str, Any] = {
        "run_id": manifest.run_id,
        "dataset": manifest.dataset.name,
        "split": manifest.dataset.split,
        "backbone": manifest.backbone.name,
        "strategy": manifest.strategy.name,
        "total": total,
        "created": manifest.created,
        "path": str(path),
    }
    if summary is not None and summary.dataset.n_samples == total:
        status = "failed_samples" if summary.failed_samples else "complete"
        return StoredRun(
            **described,
            status=status,
            done=total,
            failed=summary.failed_samples,
            accuracy=summary.metrics.accuracy,
        )
    decided = read_decisions(path, manifest)
    accuracy = float(decided.correct.mean()) if len(decided) else None
    return StoredRun(
        **described,
        status="incomplete",
        done=len(decided),
        failed=int(decided.failed.sum()),
        accuracy=accuracy,
    )


def _unreadable(path: Path, error: UserError) -> StoredRun:
    return StoredRun(run_id=path.name, status="unreadable", path=str(path), error=str(error))
