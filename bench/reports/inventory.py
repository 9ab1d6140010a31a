"""List stored runs, complete or not, and recordings, for `bench list`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from bench.errors import UserError
from bench.recordings.recording import open_recording
from bench.running.command import reproducing_command
from bench.stats.comparison import Settings, differing, run_settings
from bench.stats.shares import accuracy_interval
from bench.store.folder import list_runs
from bench.store.questions import ending_answer, read_questions
from bench.store.runs import StoredRun, list_shards, read_runs


class InventoryRow(BaseModel):
    """One run's folder. If it cannot be read, only id, status, path and error are set."""

    run_id: str
    status: Literal["complete", "failed_samples", "incomplete", "unreadable"]
    dataset: str | None = None
    split: str | None = None
    backbone: str | None = None
    strategy: str | None = None
    differs: Settings = {}  # settings that are not the same in all rows of the same kind
    shard: str | None = None  # number of the shard and of shards, such as 3/16; None: a whole run
    done: int | None = None  # number of decided images
    total: int | None = None  # number of images of the run
    split_total: int | None = None  # number of images of the whole split
    failed: int | None = None  # number of decided images that failed
    accuracy: float | None = None  # accuracy on the decided images; None if there are none
    accuracy_ci95: tuple[float, float] | None = None  # 95 % interval, for a fixed number of images
    cost: float | None = None  # evaluation equivalents per image, 1 for a classifier
    command: str | None = None  # command that makes the run again
    stopped: str | None = None  # where a stopping rule ended the run and what it shows, in words
    anytime_ci95: tuple[float, float] | None = None
    """Confidence sequence of the accuracy, 95 %; None if no stopping rule ended the run."""
    note: str | None = None  # the user's note
    tags: list[str] = []
    created: str | None = None
    path: str
    error: str | None = None
    settings: Settings = Field({}, exclude=True)  # all settings of the run
    labels: str = Field("", exclude=True)  # tags and note, as one text

    @property
    def shown_ci95(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy, valid also if a stopping rule ended the run."""
        return self.anytime_ci95 or self.accuracy_ci95

    @property
    def is_subset(self) -> bool:
        """Whether a complete run has only a part of the split."""
        return self.status == "complete" and self.shard is None and self.total != self.split_total

    @property
    def state(self) -> str:
        """The status in words; `subset` for a complete run on a part of the split."""
        return "subset" if self.is_subset else self.status.replace("_", " ")

    @property
    def images(self) -> str:
        """How many images are decided, of how many and how many failed, in words."""
        if self.done is None or self.total is None:
            return self.status
        of = self.split_total if self.is_subset else self.total
        text = f"{self.done:,}" + f" of {of:,}" * (self.done != of)
        text += " so far" * (self.status == "incomplete")
        return text + (f", {self.failed:,} failed" if self.failed else "")


class RecordingRow(BaseModel):
    """A run with recorded errors, on which strategies can be replayed."""

    run_id: str
    dataset: str
    split: str
    backbone: str
    images: int  # number of images with recorded errors
    images_asked: int  # number of images of the run
    prompts: int  # number of prompts; for a dataset of items, the largest number of texts
    draws: int
    first_order: bool  # whether first-order errors were also recorded
    bytes: int  # size of the recorded errors on disk
    path: str

    @property
    def bytes_per_image(self) -> float:
        """Size of the recorded errors per image, in bytes."""
        return self.bytes / self.images


def stored_recordings(folder: Path) -> list[RecordingRow]:
    """Return the recordings at any depth below a folder, sorted by path."""
    rows = []
    for path in run_folders(folder):
        with suppress(UserError):
            recording = open_recording(path)
            manifest = recording.manifest
            files = [file for kind in ("errors", "first_order") for file in (path / kind).glob("*")]
            row = RecordingRow(
                run_id=manifest.run_id,
                dataset=manifest.dataset.name,
                split=manifest.dataset.split,
                backbone=manifest.backbone.name,
                images=len(recording.records),
                images_asked=manifest.total,
                prompts=len(manifest.class_of_column),
                draws=recording.n_draws,
                first_order=recording.problem.can_linearise,
                bytes=sum(file.stat().st_size for file in files),
                path=str(path),
            )
            rows.append(row)
    return rows


def stored_runs(folder: Path) -> list[InventoryRow]:
    """Return the runs and unmerged shards at any depth below a folder, sorted by path."""
    rows: list[InventoryRow] = []
    for run in read_runs(
        run_folders(folder), lambda path, error: rows.append(unreadable_row(path, error))
    ):
        rows.append(inventory_row(run))
    set_differing(rows)
    return rows


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of runs and unmerged shards at any depth below a folder, sorted."""
    return sorted([*list_runs(folder), *list_shards(folder)])


def set_differing(rows: Iterable[InventoryRow]) -> None:
    """Set `differs` in place, among the rows of the same dataset, split, backbone and strategy."""
    kinds: dict[tuple[str | None, ...], list[InventoryRow]] = {}
    for row in rows:
        kinds.setdefault((row.dataset, row.split, row.backbone, row.strategy), []).append(row)
    for group in kinds.values():
        for row, differs in zip(group, differing([r.settings for r in group]), strict=True):
            row.differs = differs


def unreadable_row(path: Path, error: UserError) -> InventoryRow:
    """Return the row of a run that cannot be read."""
    return InventoryRow(run_id=path.name, status="unreadable", path=str(path), error=str(error))


def inventory_row(run: StoredRun) -> InventoryRow:
    """Return the row of a run; `differs` is set by `set_differing`."""
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
        split_total=manifest.dataset.n_total,
        note=manifest.config.note,
        tags=manifest.config.tags,
        labels=manifest.config.labels,
        created=manifest.created,
        path=str(run.path),
        settings=run_settings(manifest),
        command=reproducing_command(manifest),
    )
    if summary is not None and run.complete:
        row.status = "failed_samples" if summary.failed_samples else "complete"
        row.done, row.failed = manifest.total, summary.failed_samples
        row.accuracy, row.accuracy_ci95 = summary.metrics.accuracy, summary.metrics.accuracy_ci95
        row.cost = summary.cost.per_image(manifest.classifier)
        if stop := ending_answer(read_questions(run.path, manifest), row.done):
            row.stopped, row.anytime_ci95 = stop.label, stop.interval
    else:
        decided = run.decided()
        row.done, row.failed = len(decided), int(decided.failed.sum())
        if row.done:
            row.accuracy = float(decided.correct.mean())
            row.accuracy_ci95 = accuracy_interval(int(decided.correct.sum()), row.done)
    return row
