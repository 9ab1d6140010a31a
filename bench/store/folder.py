"""A run's folder: opened for writing by one process, read by anybody."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from pydantic import ValidationError

from bench.contracts.decision import Decided
from bench.contracts.strategy import Ints
from bench.errors import BenchError, StoreError, UserError, quoted
from bench.machine.files import regular_file
from bench.machine.writing import replacing, write_atomically
from bench.store.cells import Times, has_cells, write_cells
from bench.store.documents import FORMAT, Fitted, Manifest, Summary, migrated
from bench.store.draw_table import NAME as DRAWS
from bench.store.draw_table import DrawTable, write_draws
from bench.store.fields import first_problem
from bench.store.files import read_json
from bench.store.first_order import write_first_order
from bench.store.identity import digest
from bench.store.journal import JOURNAL, Journal, has_id, read_journal
from bench.store.journal_table import read_table
from bench.store.records import Record, is_record
from bench.store.shards import SHARDS, holds_shards, joined

MANIFEST, SUMMARY, LOCK = "manifest.json", "summary.json", ".lock"
ADDING = ".adding-"  # what a folder is called whose content is not checked yet


class RunFolder:
    """One run on disk, held by this process until the `with` block ends.

    A folder that is new is gone again where the block raises a `BenchError` before the first image.

    Args:
        path: the run's folder; made if need be.
        manifest: what the run is. Where the folder has one of the same identity, the run resumes.
        fresh: start over instead.

    Raises:
        UserError: the folder cannot be written, is in use, or holds something else.
    """

    def __init__(self, path: Path, manifest: Manifest, fresh: bool = False) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = FileLock(path / LOCK)
        self._fresh = fresh
        self._times: Times | None = None

    def __enter__(self) -> RunFolder:
        try:
            self._made = not os.path.lexists(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_links()
            self._lock.acquire(timeout=0)
            if self._fresh:
                self._empty()
            self._adopt_manifest()
            self._journal = Journal(self.path / JOURNAL)
        except Timeout:
            raise UserError(
                f"Another process is writing {self.path}. Wait for it, or give this run another"
                " --results folder."
            ) from None
        except (OSError, ValueError) as error:  # a path may hold a NUL
            self._lock.release()
            raise UserError(f"The results folder {self.path} cannot be written: {error}.") from None
        except UserError:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._journal.close()
        if self._made and isinstance(error, BenchError):
            self._remove_if_empty()
        self._lock.release()

    def _remove_if_empty(self) -> None:
        """Leave no folder of a run that was refused before its first image, as for its weights."""
        with suppress(OSError):
            if not (self.path / JOURNAL).stat().st_size:
                for name in (JOURNAL, MANIFEST, DRAWS, LOCK):
                    (self.path / name).unlink(missing_ok=True)
                self.path.rmdir()
                if self.path.parent.name == SHARDS:
                    self.path.parent.rmdir()
                    self.path.parent.parent.rmdir()

    def _refuse_links(self) -> None:
        """Refuse files and folders of the run that lie elsewhere: nothing outside is written."""
        for name in (LOCK, JOURNAL):
            regular_file(self.path, name)
        for name in ("errors", "first_order"):
            if (self.path / name).is_symlink():
                raise UserError(f"{self.path / name} is a link. Put the folder in its place.")

    def _empty(self) -> None:
        for name in (SUMMARY, JOURNAL, MANIFEST, DRAWS):
            (self.path / name).unlink(missing_ok=True)
        for name in ("errors", "first_order"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _adopt_manifest(self) -> None:
        """Go on with the run that is there; its samples and those asked for now are all asked."""
        if os.path.lexists(self.path / MANIFEST):
            earlier = read_manifest(self.path)
            if digest(earlier.identity) != digest(self.manifest.identity):
                raise UserError(
                    f"{self.path} holds another run. Move it away, or use --fresh to replace it."
                )
            now = joined(earlier, self.manifest).model_copy(update={"created": earlier.created})
            if earlier.linearisation_cost is None and now.linearisation_cost is not None:
                now = now.unpriced()
            if earlier.fitted is not None:
                now = now.model_copy(update={"fitted": earlier.fitted})
            self.manifest = now
        write_atomically(self.path / MANIFEST, to_json(self.manifest.plain()))

    def outstanding(self, sample_ids: Sequence[str], save_errors: bool) -> list[str]:
        """Return those of the samples without a good line, or without their errors if wanted."""
        return _outstanding(self.path, self.manifest, sample_ids, save_errors)

    def keep_draws(self, draws: DrawTable) -> None:
        """Write what the draws are, beside the errors that will be kept of them.

        Raises:
            StoreError: the disk is full or gone.
        """
        with self._writing():
            write_draws(self.path, draws)
        if not np.array_equal(draws.table.time, draws.levels):
            self._times = draws.table.time

    def keep_fitted(self, fitted: Fitted) -> None:
        """Write into the manifest what a backbone that learned says of the result.

        Raises:
            StoreError: the disk is full or gone.
        """
        self.manifest = self.manifest.model_copy(update={"fitted": fitted})
        with self._writing():
            write_atomically(self.path / MANIFEST, to_json(self.manifest.plain()))

    def append(self, record: Record, decided: Decided | None, timesteps: Ints) -> None:
        """Make one image's result durable; its errors, if wanted, are on disk before its line.

        Raises:
            StoreError: the disk is full or gone; what was appended before is kept.
        """
        with self._writing():
            if decided is not None and record["error"] is None:
                name = record["sample_id"]
                if decided.linearised:  # first: errors say that the image is complete
                    folder = self.path / "first_order"
                    write_first_order(folder, name, decided.linearised, timesteps)
                write_cells(self.path / "errors", name, decided.cells, timesteps, self._times)
            self._journal.append(record)

    def replace(self, manifest: Manifest, lines: Iterable[bytes]) -> None:
        """Take these lines and this manifest in place of the ones there; see `bench.store.merging`.

        Raises:
            StoreError: the disk is full or gone; the lines there before are kept.
        """
        with self._writing():
            with replacing(self.path / JOURNAL) as file:
                file.writelines(lines)
            self.manifest = manifest
            write_atomically(self.path / MANIFEST, to_json(manifest.plain()))

    def finish(self, summary: Summary) -> None:
        """Write the summary, last and atomically.

        Raises:
            StoreError: the disk is full or gone; the decisions are kept.
        """
        with self._writing():
            write_atomically(self.path / SUMMARY, to_json(summary.plain()))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written any more: {error.strerror or error}. What was"
                " decided before is kept there; make room, and the same command resumes."
            ) from error


def missing(path: Path, manifest: Manifest, save_errors: bool) -> list[str] | None:
    """Return the samples that `manifest` asks for and the run in `path` has not decided.

    Returns:
        None where there is no such run.

    Raises:
        UserError: the manifest there is damaged.
    """
    if not os.path.lexists(path / MANIFEST):
        return None
    stored = read_manifest(path)
    if digest(stored.identity) != digest(manifest.identity):
        return None
    return _outstanding(path, stored, manifest.samples, save_errors)


def _outstanding(
    path: Path, manifest: Manifest, sample_ids: Sequence[str], save_errors: bool
) -> list[str]:
    table = read_table(path, len(manifest.classes))
    done = set(table.filter(table["error"].is_null())["sample_id"].to_pylist())
    if save_errors:
        done = {i for i in done if has_cells(path / "errors", i)}
    return [sample_id for sample_id in sample_ids if sample_id not in done]


def read_manifest(path: Path) -> Manifest:
    """Read a run's manifest, of this format or an earlier one.

    Raises:
        UserError: there is none, it is damaged, or a newer version of the toolkit wrote it.
    """
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise UserError(f"{path} is not a run: it has no {MANIFEST}.")
    advice = (
        f"Its {JOURNAL} is not touched: delete the manifest, and the `bench run` that made it"
        " writes it again and keeps what was decided."
    )
    try:
        raw = read_json(path, MANIFEST)
    except UserError as error:
        raise UserError(f"{error} {advice}") from None
    written = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise UserError(
            f"{file} was written by a newer version of the toolkit (format {written}, this one"
            f" knows {FORMAT}). Update with: pip install -U diffusion-classifier-bench"
        )
    try:
        return Manifest.model_validate(migrated(raw) if isinstance(raw, dict) else raw)
    except ValidationError as error:
        said = f"{file} is not a run's manifest: {first_problem(error)}."
        raise UserError(f"{said} {advice}") from None


def read_records(path: Path, n_classes: int | None = None) -> dict[str, Any]:
    """Return the latest record of each sample, by id, in the order first written.

    Args:
        path: the run's folder.
        n_classes: leave out, with a warning, what is no record of a run with so many classes.
    """
    good = has_id if n_classes is None else lambda value: is_record(value, n_classes)
    return {record["sample_id"]: record for record in read_journal(path / JOURNAL, good)}


def asked_records(path: Path, manifest: Manifest) -> list[Any]:
    """Return the records of the samples asked for, in the order of the manifest."""
    records = read_records(path, len(manifest.classes))
    return [records[sample_id] for sample_id in manifest.samples if sample_id in records]


def read_summary(path: Path) -> Summary | None:
    """Return the summary of a run; None where the run has none yet.

    Raises:
        UserError: it is damaged.
    """
    if not os.path.lexists(path / SUMMARY):
        return None
    try:
        return Summary.model_validate(read_json(path, SUMMARY))
    except ValidationError as error:
        raise UserError(
            f"{path / SUMMARY} is not a run's summary: {first_problem(error)}."
        ) from None


def find_run(run: str, results: str) -> Path:
    """Return the folder of a run named by id or by path.

    Raises:
        UserError: there is no such run.
    """
    candidates: Iterable[Path] = (Path(run), Path(results, run), Path(results, "published", run))
    for path in candidates:
        if os.path.lexists(path / MANIFEST):
            return path
    if holds_shards(Path(results, run)):
        raise UserError(
            f"{quoted(run)} is in shards. `bench results merge` makes one run of them; a shard by"
            " itself is named by its folder."
        )
    listing = "bench list runs"
    if results != "results":
        listing += f" --results {shlex.quote(results)}"
    raise UserError(
        f"There is no run {quoted(run)}, neither as a folder nor in {quoted(results)}."
        f" `{listing}` shows all."
    )


def list_runs(results: Path) -> list[Path]:
    """Return the folders of all runs below `results`, its `published/` included.

    Raises:
        UserError: `results` cannot be the name of a folder.
    """
    if "\0" in str(results):
        raise UserError(f"There is no folder {quoted(str(results))}.")
    return sorted(places(results, MANIFEST))


def places(results: Path, name: str) -> Iterator[Path]:
    """Yield the folders below `results` that hold a file of this name.

    A run's own folders are not entered: `errors/` may hold 200,000 files. Links are not followed.
    """
    for folder, below, files in os.walk(results):
        if name in files or name in below:  # whatever it is: who reads it says so
            yield Path(folder)
        run = MANIFEST in files or MANIFEST in below or (SHARDS in below and holds_shards(folder))
        below[:] = [n for n in below if not run and not n.startswith(ADDING)]


def to_json(value: Any) -> str:
    """Return indented JSON with a line's end."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
