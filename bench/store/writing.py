"""Writing a run's folder, which one process at a time locks."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.contracts.decision import Decided
from bench.contracts.strategy import Ints
from bench.errors import BenchError, StoreError, UserError
from bench.machine.files import regular_file, replacing
from bench.store.folder import (
    MANIFEST,
    SHARDS,
    joined_manifest,
    read_manifest,
    read_records,
    undecided_samples,
)
from bench.store.formats.cells import (
    DRAWS,
    ERROR_FOLDERS,
    DrawTable,
    Times,
    copy_part,
    write_cells,
    write_draws,
    write_first_order,
)
from bench.store.formats.documents import Manifest, StoredConfig, mixed_code_warning, with_code_of
from bench.store.formats.fields import without_none
from bench.store.formats.identity import digest
from bench.store.formats.journal import JOURNAL, SWEEP, Record
from bench.store.locking import LOCK, LONG_LOCK_WAIT, SHORT_LOCK, locked
from bench.store.merging import Merge
from bench.store.questions import EARLIER_QUESTIONS, QUESTIONS, read_questions
from bench.store.summary import AGAIN, AUDIT, SUMMARY, Summary, Swept

OF_QUESTIONS = QUESTIONS.name, EARLIER_QUESTIONS.name
REPLACED = (SUMMARY.name, JOURNAL, MANIFEST, DRAWS, AGAIN.name, AUDIT.name, *OF_QUESTIONS)


class RunFolder:
    """The folder of one run, locked by this process for the duration of a `with` block.

    The folder is created if necessary. A run with the same identity in it is resumed, or deleted if
    `fresh`. If the block raises a `BenchError` before the first image is stored, a folder that it
    created is removed. `manifest` also has the samples of earlier commands; `mixed_code` warns if
    stored results were made by different code.

    Entering the block raises UserError if the folder cannot be written, is in use, or contains
    another run. Methods raise `StoreError` if the disk is full or gone; what was stored is kept.
    """

    mixed_code: str | None = None

    def __init__(self, path: Path, manifest: Manifest, fresh: bool = False) -> None:
        self.path = path
        self.manifest = manifest
        self._fresh = fresh
        self._times: Times | None = None
        self._asked_before: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._made = not os.path.lexists(self.path)
                self.path.mkdir(parents=True, exist_ok=True)
                regular_file(self.path, JOURNAL)
                if links := [n for n in ERROR_FOLDERS if (self.path / n).is_symlink()]:
                    raise UserError(f"{self.path / links[0]} must be a folder, got a link.")
                self._folder = stack.enter_context(locked(self.path, LOCK, wait=LONG_LOCK_WAIT))
                if self._fresh:
                    with locked(self.path) as folder:
                        folder.remove(*REPLACED, *ERROR_FOLDERS)
                self._adopt_manifest()
                self._journal = self._folder.journal(JOURNAL)
            except (OSError, ValueError, StoreError) as error:  # ValueError if the path has a NUL
                reason = error.__cause__ or error
                message = f"The results folder {self.path} cannot be written: {reason}."
                raise UserError(message) from None
            self._lock = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._journal.close()
        if self._made and isinstance(error, BenchError):
            self._remove_if_empty()
        self._lock.close()

    def _remove_if_empty(self) -> None:
        with suppress(OSError):
            if not (self.path / JOURNAL).stat().st_size:
                self._folder.remove(JOURNAL, MANIFEST, DRAWS, *OF_QUESTIONS, SHORT_LOCK, LOCK)
                self.path.rmdir()
                if self.path.parent.name == SHARDS:
                    self.path.parent.rmdir()
                    self.path.parent.parent.rmdir()

    def _adopt_manifest(self) -> None:
        """Join the manifest with a stored one, and write it if it changed."""
        if os.path.lexists(self.path / MANIFEST):
            earlier = read_manifest(self.path)
            if digest(earlier.identity) != digest(self.manifest.identity):
                raise UserError(
                    f"{self.path} contains another run. Move it, or use --fresh to replace it."
                )
            # While a question is open, the stored manifest asks for all samples of the split.
            if not any(question.answer is None for question in read_questions(self.path, earlier)):
                self._asked_before = earlier.samples
            kept = ("created", "fitted", "warnings", "rounding")
            update = without_none(**{name: getattr(earlier, name) for name in kept})
            now = joined_manifest(earlier, self.manifest).with_unknowns_of([earlier])
            now = now.model_copy(update=update)
            if (self.path / JOURNAL).is_file() and (self.path / JOURNAL).stat().st_size:
                changed = "has changed since this run began"
                self.mixed_code = mixed_code_warning([earlier, now], changed)
                now = with_code_of(now, [earlier])
            self.manifest = now
            if now.plain() == earlier.plain():
                return
        self._folder.write(MANIFEST, self.manifest)

    def change(self, **changes: object) -> None:
        """Change fields of the manifest and write it; ValueError, before, if it became invalid."""
        manifest = self.manifest.model_copy(update=changes)
        Manifest.model_validate(manifest.plain())
        self.manifest = manifest
        with self._writing():
            self._folder.write(MANIFEST, self.manifest)

    def narrow(self, sample_ids: Sequence[str]) -> None:
        """Limit the manifest to these samples and those that earlier commands asked for.

        Results on other samples stay in the journal but are no longer part of the run.
        """
        kept = self.manifest.narrowed({*sample_ids, *self._asked_before})
        self.change(samples=kept.samples)

    def outstanding(self, sample_ids: Sequence[str], save_errors: bool) -> list[str]:
        """Return the samples that are not decided, or lack errors with `save_errors`."""
        return undecided_samples(self.path, self.manifest, sample_ids, save_errors)

    def keep_draws(self, draws: DrawTable) -> None:
        """Write the table of draws. Must be called before `append` stores errors."""
        with self._writing():
            write_draws(self.path, draws)
        if not np.array_equal(draws.table.time, draws.levels):
            self._times = draws.table.time  # stored with the errors, since it is not the timestep

    def append(self, record: Record, decided: Decided | None, timesteps: Ints) -> None:
        """Store one image's record and, unless `decided` is None, its errors.

        `timesteps` is the level of each draw, int64 [N]. Errors are on disk before the record.
        """
        with self._writing():
            if decided is not None and record["error"] is None:
                name = record["sample_id"]
                if decided.linearised:  # before the errors, which mark the image as complete
                    folder = self.path / "first_order"
                    write_first_order(folder, name, decided.linearised, timesteps)
                write_cells(self.path / "errors", name, decided.cells, timesteps, self._times)
            self._journal.append(record)

    def append_swept(self, swept: Swept) -> None:
        """Store the full sweep of one image in the audit."""
        with self._writing():
            AUDIT.append(self._folder, digest(self.manifest.identity), swept)

    def copy_sweep(self, source: Path, sample_ids: Collection[str], save_errors: bool) -> None:
        """Copy decisions on outstanding samples from the full sweep in the folder `source`.

        Samples that failed in the sweep are left out. The copies have `sweep` in `decided_by`.
        """
        shared = [name for name in self.manifest.samples if name in set(sample_ids)]
        outstanding = self.outstanding(shared, save_errors)
        records = read_records(source, len(self.manifest.classes)) if outstanding else {}
        with self._writing():
            for name in outstanding:
                record = records.get(name)
                if record is None or record["error"] is not None:
                    continue
                for folder in ERROR_FOLDERS if save_errors else ():
                    copy_part(source / folder, self.path / folder, name)
                self._journal.append({**record, "decided_by": SWEEP})

    def replace(self, merge: Merge, swept: Mapping[str, Swept]) -> None:
        """Replace the records, errors, manifest and, with `swept`, audit by those of a merge.

        Records that are all in this folder stay as they are, since side files rely on their order.
        """
        with self._writing():
            merge.copy_errors(self.path)
            used = {merge.sources[line.source].path for line in merge.line_of.values()}
            if used != {self.path}:
                with replacing(self.path / JOURNAL) as file:
                    file.writelines(merge.lines())
            self.manifest = merge.manifest()
            self._folder.write(MANIFEST, self.manifest)
            if swept:
                AUDIT.rewrite(self._folder, digest(self.manifest.identity), swept.values())

    def finish(self, summary: Summary) -> None:
        """Write the summary atomically. It must come last, since it marks the run as finished."""
        with self._writing():
            SUMMARY.write(self._folder, digest(self.manifest.identity), summary)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written any more: {error.strerror or error}. What was"
                " decided before is kept there. Make room, and the same command resumes."
            ) from error


def update_labels(path: Path, config: StoredConfig) -> None:
    """Replace a stored run's note and tags by those of `config`, if any. Raises as `locked`."""
    stored = read_manifest(path)
    if stored.config.labelled_as(config) != stored.config:
        with locked(path, LOCK) as folder:  # scoring writes the manifest, too
            stored = read_manifest(path)
            update = {"config": stored.config.labelled_as(config)}
            folder.write(MANIFEST, stored.model_copy(update=update))
