"""The results folder as the pages see it: read again where its files changed, and not else."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.boards.inventory import (
    InventoryRow,
    row_of,
    run_folders,
    tell_apart,
    unreadable,
)
from bench.errors import UserError
from bench.render.images import Images
from bench.render.runs import RunData, with_decisions
from bench.render.studies import StudyPart, study_part
from bench.running.verbs.command import reproducing_command
from bench.stats.comparison import Comparison, compare
from bench.stats.differences import Settings, run_settings
from bench.stats.shares import accuracy_interval
from bench.store.calibrations import (
    CALIBRATION,
    Calibrated,
    calibration_files,
    find_calibrations,
)
from bench.store.folder import MANIFEST, SUMMARY, places
from bench.store.journal import JOURNAL
from bench.store.runs import read_run
from bench.store.studies import STUDY, Study, list_studies, read_study

LOADED = 4  # runs whose decisions are held; 200,000 images take about 100 MB
IDLE = 10  # a growing run is read again after so many times as long as reading it took

Stamp = tuple[tuple[int, int], ...]  # when each file changed, and its size
Kept = TypeVar("Kept")


@dataclass
class Line:
    """A run in the list.

    Attributes:
        key: names it in an address: its folder below the results.
        row: what is known of it.
        settings: by which it differs from others.
        ends: of the accuracy's 95 % interval.
        cost: evaluation equivalents per image; None: not known yet.
        command: makes the run again.
        stamp: of the files that this was read from.
        wait: until when a change is not looked at, on `time.monotonic`'s clock.
    """

    key: str
    row: InventoryRow
    settings: Settings = field(default_factory=dict)
    ends: tuple[float, float] | None = None
    cost: float | None = None
    command: str = ""
    stamp: Stamp = ()
    wait: float = 0.0


@dataclass(frozen=True)
class ListedStudy:
    """A study in the list.

    Attributes:
        folder: where it is stored.
        study: its state; None: it cannot be read.
        changed: when its file did, in nanoseconds.
        error: why it cannot be read.
    """

    folder: Path
    study: Study | None
    changed: int = 0
    error: str = ""


@dataclass(frozen=True)
class _KeptStudy:
    part: StudyPart
    changed: int
    wait: float


class Stored:
    """All runs below a folder.

    Only folders that a walk through the results found are ever read: a key is looked up among
    them, and never made part of a path.

    Args:
        results: the folder.
        data_dirs: where the images of a dataset lie; see `Images`.
    """

    def __init__(self, results: Path, data_dirs: Mapping[str, str]) -> None:
        self.results = results
        self.images = Images(data_dirs)
        self._lines: dict[Path, Line] = {}
        self._studies: dict[str, _KeptStudy] = {}
        self._kept: OrderedDict[tuple[object, ...], object] = OrderedDict()

    def lines(self) -> list[Line]:
        """Return the runs there are now, in the order of their paths."""
        there = run_folders(self.results)
        for path in there:
            known = self._lines.get(path)
            stamp = stamp_of(path)
            started = time.monotonic()
            if known is None or (known.stamp != stamp and started >= known.wait):
                self._lines[path] = line = self._read(path, stamp)
                if known is not None:  # the first time takes longer: it imports what it needs
                    ended = time.monotonic()
                    line.wait = ended + IDLE * (ended - started)
        self._lines = {path: self._lines[path] for path in there}
        lines = list(self._lines.values())
        tell_apart((line.row, line.settings) for line in lines)
        return lines

    def _read(self, path: Path, stamp: Stamp) -> Line:
        key = path.relative_to(self.results).as_posix()
        try:
            run = read_run(path)
            row = row_of(run)
        except UserError as error:
            return Line(key, unreadable(path, error), stamp=stamp)
        summary, classifier = run.summary if run.complete else None, run.manifest.classifier
        cost = None if summary is None else summary.cost.per_image(classifier)
        ends = None
        if row.accuracy is not None and row.done:
            ends = accuracy_interval(round(row.accuracy * row.done), row.done)
        command = reproducing_command(run.manifest)
        return Line(key, row, run_settings(run.manifest), ends, cost, command, stamp)

    def studies(self) -> dict[str, ListedStudy]:
        """Return the studies there are now, by the name of their folder."""
        found = {}
        for folder in list_studies(self.results):
            try:
                changed = (folder / STUDY).stat().st_mtime_ns
                found[folder.name] = ListedStudy(folder, read_study(folder), changed)
            except (OSError, UserError) as error:
                found[folder.name] = ListedStudy(folder, None, error=str(error))
        return found

    def study(self, name: str) -> StudyPart:
        """Return what a study says; while it is made, again after a while.

        Raises:
            UserError: there is none of this name, or it cannot be read.
        """
        listed = self.studies().get(name)
        if listed is None:
            raise UserError(f"There is no study {name!r} in {self.results}.")
        started = time.monotonic()
        known = self._studies.get(name)
        if known is None or (known.changed != listed.changed and started >= known.wait):
            part = study_part(listed.folder)
            ended = time.monotonic()
            wait = 0.0 if known is None else ended + IDLE * (ended - started)
            known = _KeptStudy(part, listed.changed, wait)
            self._studies[name] = known
        return known.part

    def line(self, key: str) -> Line:
        """Return a run of the list.

        Raises:
            UserError: there is none of this key.
        """
        for line in self.lines():
            if line.key == key:
                return line
        raise UserError(f"There is no run {key!r} in {self.results}.")

    def run(self, key: str) -> RunData:
        """Return a run with its decisions.

        Raises:
            UserError: there is none, it cannot be read, or nothing of it is decided.
        """
        path = self.path(key)
        return self.keep(("run", path), (path,), lambda: with_decisions(read_run(path)))

    def calibrations(self) -> list[Calibrated]:
        """Return the calibrations there are now; one that cannot be read is left out."""
        folders = tuple(sorted(places(self.results, CALIBRATION)))
        return self.keep(
            ("calibrations",),
            folders,
            lambda: list(find_calibrations(self.results, lambda path, error: None)),
        )

    def comparison(self, a: str, b: str) -> Comparison:
        """Return run B against run A.

        Raises:
            UserError: they do not compare.
        """
        one, other = self.path(a), self.path(b)
        return self.keep(("compare", one, other), (one, other), lambda: compare(one, other))

    def path(self, key: str) -> Path:
        """Return a run's folder.

        Raises:
            UserError: there is none of this key.
        """
        return Path(self.line(key).row.path)

    def keep(
        self, name: tuple[object, ...], paths: tuple[Path, ...], make: Callable[[], Kept]
    ) -> Kept:
        """Return what `make` gives, the same again until the runs' files change.

        Args:
            name: what it is.
            paths: the folders of the runs that it is made of.
            make: makes it.
        """
        key = (*name, *map(stamp_of, paths))
        if key not in self._kept:
            for old in [k for k in self._kept if k[: len(name)] == name]:
                del self._kept[old]
            self._kept[key] = make()
            while len(self._kept) > 3 * LOADED or self._runs() > LOADED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        found: Kept = self._kept[key]  # type: ignore[assignment]  # what `make` gave
        return found

    def _runs(self) -> int:
        return sum(isinstance(value, RunData) for value in self._kept.values())


def stamp_of(path: Path) -> Stamp:
    """Return what tells whether a run's files changed."""
    found = []
    for name in (MANIFEST, JOURNAL, SUMMARY, *calibration_files(path)):
        try:
            status = (path / name).stat()
        except (OSError, ValueError):
            found.append((0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)
