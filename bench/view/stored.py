"""Cached access to the results folder: a run is read again only if its files have changed."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Generic, TypeVar

from bench.errors import UserError
from bench.reports.comparisons import compare
from bench.reports.facts import Fact
from bench.reports.figures.images import Images
from bench.reports.inventory import (
    InventoryRow,
    read_row,
    row_of,
    run_folders,
    with_differing,
    with_state,
)
from bench.reports.run_view import RunView, read_decided_run
from bench.reports.study.figures import StudyPart, study_part
from bench.stats.metrics.comparison import Comparison
from bench.store.calibrations import CALIBRATION, Calibrated, find_calibrations
from bench.store.folder import MANIFEST, folders_with
from bench.store.runs import read_run
from bench.store.studies import STUDY, Study, list_studies, read_study

LOADED = 4  # runs whose decisions stay in memory; 200,000 images take about 100 MB
PAUSE = 10  # a growing run is read again after PAUSE times the duration of reading it

Stamp = tuple[tuple[str, int, int], ...]  # name, modification time and size of each file
Key = TypeVar("Key")
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class ListedStudy:
    """A study on the list: its state, or the error from reading it."""

    folder: Path
    study: Study | None
    changed: int = 0  # modification time of its file, in nanoseconds
    error: str = ""

    @property
    def progress(self) -> Fact:
        """How many runs are complete, or the error."""
        if self.study is None:
            return Fact("", self.error)
        done, cells = self.study.done, len(self.study.cells)
        return Fact("", f"{done} of {cells}", share=done / max(1, cells))


@dataclass
class _Reading(Generic[Kept]):
    """A value that was read from files."""

    value: Kept
    stamp: object  # stamp of the files when they were read
    read_again_from: float  # time until which a new stamp is ignored


def _read_if_changed(
    readings: dict[Key, _Reading[Kept]], key: Key, stamp: object, read: Callable[[], Kept]
) -> Kept:
    """Return the value of a key, which is read again if its stamp has changed, after a pause."""
    started = time.monotonic()
    reading = readings.get(key)
    if reading is None or (reading.stamp != stamp and started >= reading.read_again_from):
        value, ended = read(), time.monotonic()
        # No pause after the first reading, which takes longer because it imports modules.
        again_from = 0.0 if reading is None else ended + PAUSE * (ended - started)
        readings[key] = reading = _Reading(value, stamp, again_from)
    return reading.value


class Stored:
    """All runs and studies below the folder `results`; `data_dirs` is as for `Images`.

    A key stands for a run in addresses. Since addresses may contain anything, a key is never made
    part of a path, but looked up among the folders of runs below `results`.
    """

    def __init__(self, results: Path, data_dirs: Mapping[str, str]) -> None:
        self.results = results
        self.images = Images(data_dirs)
        self._paths: dict[str, Path] = {}
        self._lines: dict[Path, _Reading[InventoryRow]] = {}
        self._studies: dict[str, _Reading[StudyPart]] = {}
        # The stamps are arguments, so that files are read again when their stamps have changed.
        self._runs = lru_cache(LOADED)(lambda path, stamp: read_decided_run(read_run(path)))
        self._comparisons = lru_cache(LOADED)(lambda a, b, *stamps: compare(a, b))
        self._calibrations = lru_cache(1)(
            lambda *stamps: list(find_calibrations(results, lambda path, error: None))
        )

    def lines(self) -> list[InventoryRow]:
        """Return the current runs, sorted by path."""
        paths = self._walk()
        self._lines = {path: self._lines[path] for path in paths if path in self._lines}
        return with_differing(map(self._line_of, paths))

    def _walk(self) -> list[Path]:
        paths = run_folders(self.results)
        self._paths = {path.relative_to(self.results).as_posix(): path for path in paths}
        return paths

    def _line_of(self, path: Path) -> InventoryRow:
        stamp = read_stamp(path)
        return with_state(_read_if_changed(self._lines, path, stamp, partial(read_row, path)))

    def key(self, row: InventoryRow) -> str:
        """Return the key of a run: its folder, relative to the results."""
        return Path(row.path).relative_to(self.results).as_posix()

    def studies(self) -> dict[str, ListedStudy]:
        """Return the current studies by folder name."""
        studies = {}
        for folder in list_studies(self.results):
            try:
                changed = (folder / STUDY.name).stat().st_mtime_ns
                studies[folder.name] = ListedStudy(folder, read_study(folder), changed)
            except (OSError, UserError) as error:
                studies[folder.name] = ListedStudy(folder, None, error=str(error))
        return studies

    def study(self, name: str) -> StudyPart:
        """Return a study for a page; UserError if it does not exist or is damaged."""
        listed = self.studies().get(name)
        if listed is None:
            raise UserError(f"There is no study {name!r} in {self.results}.")
        return _read_if_changed(
            self._studies, name, listed.changed, lambda: study_part(listed.folder)
        )

    def line(self, key: str) -> InventoryRow:
        """Return the row of a run without `differs`; UserError if there is none with this key."""
        return self._line_of(self.path(key))

    def run(self, key: str) -> RunView:
        """Return a run with its decisions; UserError if it is missing, damaged, or undecided."""
        path = self.path(key)
        return self._runs(path, read_stamp(path))

    def page_of(self, key: str) -> tuple[RunView, InventoryRow]:
        """Return a run and its row, both made from the same records; UserError as for `run`."""
        path = self.path(key)
        stamp = read_stamp(path)
        run = self._runs(path, stamp)
        row = row_of(run)
        self._lines[path] = _Reading(row, stamp, 0.0)
        return run, with_state(row)

    def calibrations(self) -> list[Calibrated]:
        """Return the current calibrations, except unreadable ones."""
        return self._calibrations(*map(read_stamp, sorted(folders_with(self.results, CALIBRATION))))

    def comparison(self, a: str, b: str) -> Comparison:
        """Compare run B with run A; UserError if they are not comparable."""
        paths = self.path(a), self.path(b)
        return self._comparisons(*paths, *map(read_stamp, paths))

    def path(self, key: str) -> Path:
        """Return a run's folder; UserError if there is none with this key.

        The results are walked through only if the folder is not known yet or is gone.
        """
        path = self._paths.get(key)
        if path is None or path.is_symlink() or not os.path.lexists(path / MANIFEST):
            self._walk()
        if key not in self._paths:
            raise UserError(f"There is no run {key!r} in {self.results}.")
        return self._paths[key]


def read_stamp(path: Path) -> Stamp:
    """Return name, modification time and size of each file in a run's folder, sorted."""
    try:
        with os.scandir(path) as entries:
            files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except (OSError, ValueError):
        return ()
    return tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in files))
