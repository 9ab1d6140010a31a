"""List stored runs, complete or not, and recordings; print the runs on a terminal."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from pydantic import Field

from bench.contracts.parameters import Parameters
from bench.errors import UserError
from bench.machine.stages import counted
from bench.recordings.recording import open_recording
from bench.reports.facts import NONE, Column, Fact, assignments
from bench.reports.rows import RunRow, accuracy_fact
from bench.reports.run_view import RunView, read_view
from bench.reports.terminal.tables import console, print_table
from bench.reports.text import make_table
from bench.stats.metrics.comparison import differing, run_settings
from bench.stats.metrics.summarise import INCOMPLETE
from bench.store.folder import list_runs
from bench.store.locking import is_in_use
from bench.store.runs import list_shards

NARROW = ("run", "images", "accuracy", "what differs")  # columns of the usual table


class InventoryRow(RunRow):
    """The run in a folder. If the run cannot be read, only id, status, path and error are set."""

    path: str  # folder of the run
    shard: str | None = None  # number of the shard and of shards, such as 3/16; None: a whole run
    differs: Parameters = Field({})  # settings that are not the same in all rows of the same kind
    running: bool = False  # whether a process is scoring it now
    error: str | None = None  # reason why the run cannot be read

    @property
    def is_subset(self) -> bool:
        """Whether a complete run has only a part of the split."""
        return self.status == "complete" and self.shard is None and self.n_asked != self.n_total

    @property
    def state(self) -> str:
        """The status in words: also `running`, and `subset` for one complete on a part."""
        if self.running:
            return "running"
        return "subset" if self.is_subset else str(self.status).replace("_", " ")

    @property
    def labels(self) -> str:
        """Tags and note of the run, as one text."""
        return self.run.manifest.config.labels if self.error is None else ""

    @property
    def age(self) -> str:
        """How long ago the run was started, in words: `3 days`."""
        try:
            started = datetime.fromisoformat(self.created or "")
            seconds = (datetime.now(UTC) - started).total_seconds()
        except (ValueError, TypeError):  # the date is missing or has no time zone
            return NONE
        if seconds >= 2 * 86400:
            return f"{seconds // 86400:,.0f} days"
        for unit, name in ((86400, "day"), (3600, "h"), (60, "min")):
            if seconds >= unit:
                return f"{seconds // unit:.0f} {name}"
        return "now"

    @property
    def images(self) -> Fact:
        """The number of decided images, of the images asked for and of failed ones, in words."""
        n, n_asked = self.n_samples, self.n_asked
        if n is None or n_asked is None:
            return Fact("images", self.status)
        total = self.n_total if self.is_subset else n_asked
        text = f"{n:,}" + f" of {total:,}" * (n != total) + " so far" * (self.status == INCOMPLETE)
        text += ", running" * self.running
        text += f", {self.failed_samples:,} failed" if self.failed_samples else ""
        return Fact("images", text, share=n / n_asked if n < n_asked else None)


class RecordingRow(RunRow):
    """A run with recorded errors, on which strategies can be replayed."""

    path: str  # folder of the run
    images: int  # number of images with recorded errors
    prompts: int  # number of prompts; for a dataset of items, the largest number of texts
    draws: int
    first_order: bool  # whether first-order errors were also recorded
    bytes: int  # size of the recorded errors on disk

    @property
    def bytes_per_image(self) -> float:
        """Size of the recorded errors per image, in bytes."""
        return self.bytes / self.images


def stored_recordings(folder: Path) -> list[RecordingRow]:
    """Return the recordings at any depth below a folder, sorted by path."""
    rows, paths = [], run_folders(folder)
    for path in counted(paths, "Reading runs", len(paths), "runs"):
        with suppress(UserError):
            recording = open_recording(path)
            files = [file for kind in ("errors", "first_order") for file in (path / kind).glob("*")]
            row = RecordingRow.of(
                read_view(path),
                images=len(recording.records),
                prompts=len(recording.manifest.class_of_column),
                draws=recording.n_draws,
                first_order=recording.problem.can_linearise,
                bytes=sum(file.stat().st_size for file in files),
            )
            rows.append(row)
    return rows


def stored_runs(folder: Path) -> list[InventoryRow]:
    """Return the runs and unmerged shards at any depth below a folder, sorted by path."""
    paths = run_folders(folder)
    return with_differing(map(read_row, counted(paths, "Reading runs", len(paths), "runs")))


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of runs and unmerged shards at any depth below a folder, sorted."""
    return sorted([*list_runs(folder), *list_shards(folder)])


def with_differing(rows: Iterable[InventoryRow]) -> list[InventoryRow]:
    """Set `differs` of each row: its settings that other rows of its kind do not share.

    Rows of one kind have the same dataset, split, backbone and strategy.
    """
    rows = list(rows)
    kinds: dict[tuple[str | None, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if row.error is None:
            kind = (row.dataset, row.split, row.backbone, row.strategy)
            kinds.setdefault(kind, []).append(index)
    for indices in kinds.values():
        settings = differing([run_settings(rows[index].run.manifest) for index in indices])
        for index, differs in zip(indices, settings, strict=True):
            rows[index] = rows[index].model_copy(update={"differs": differs})
    return rows


def read_row(path: Path) -> InventoryRow:
    """Return the row of the run in a folder, also if it is unreadable, without `differs`."""
    try:
        return with_state(row_of(read_view(path)))
    except UserError as error:
        return InventoryRow(run_id=path.name, status="unreadable", path=str(path), error=str(error))


def row_of(run: RunView) -> InventoryRow:
    """Return the row of a run, without `differs` and `running`."""
    part = run.manifest.part
    return InventoryRow.of(run, shard=str(part) if part else None)


def with_state(row: InventoryRow) -> InventoryRow:
    """Return the row with `running`: whether a process is scoring the run at this moment."""
    running = row.status == INCOMPLETE and is_in_use(Path(row.path))
    return row if running == row.running else row.model_copy(update={"running": running})


def print_runs(rows: Sequence[InventoryRow], wide: bool = False) -> None:
    """Print a table per results folder, one line per run; `wide`: one table with all columns."""
    columns: list[Column[InventoryRow]] = [
        Column("run", lambda row: str(row.run_id) + (f" shard {row.shard}" if row.shard else "")),
        Column("dataset", lambda row: f"{row.dataset}/{row.split}"),
        Column("backbone", lambda row: row.backbone),
        Column("strategy", lambda row: row.strategy),
        Column("images", lambda row: row.images),
        Column("accuracy", lambda row: accuracy_fact(row, interval=wide), "share"),
        Column("age", lambda row: row.age),
        Column("what differs", _note),
        Column("where", lambda row: row.path),
    ]
    if wide:
        print_table(make_table("", columns, rows))
        return
    columns = [column for column in columns if column.name in NARROW]
    for folder, group in groupby(rows, key=lambda row: str(Path(row.path).parent)):
        console().print(folder, style="bold")
        print_table(make_table("", columns, group, cut=frozenset({"what differs"})))


def _note(row: InventoryRow) -> str:
    notes = row.error, row.errata_marks, row.labels, row.stopped, assignments(row.differs)
    return " · ".join(filter(None, notes))
