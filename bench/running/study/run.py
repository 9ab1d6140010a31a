"""A study: many prepared runs, one after another, each a run like any other.

First every run is made of a few images, then every run whole, so that a study that is stopped is
still a result. A cell that fails is reported and the others go on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import interrupts
from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.errors import BenchError, BenchWarning, StoreError, UserError
from bench.inputs.split import Split
from bench.machine.offline import offline
from bench.running.execute import Finished, execute
from bench.running.executors.cluster import check_executor
from bench.running.parts.data import DATA_SETTINGS
from bench.running.prepare import prepare
from bench.running.preparing.learned import name_fit_split
from bench.running.resolve import resolve
from bench.running.run import SharedBackbone, SharedCluster, sharing
from bench.running.settings import WHY, RunConfig, check_scope, without_unread
from bench.running.study.file import DeclaredCell, DeclaredStudy
from bench.running.study.state import Clock, now, start_study
from bench.store.studies import (
    Study,
    StudyCell,
    study_folder,
    write_study,
)

WRITE_EVERY = 2.0  # seconds between writes of the state, beside those at the ends of stages
PILOT, WHOLE = "pilot", "whole"


@dataclass(frozen=True)
class Step:
    """A cell that was made, or failed.

    Attributes:
        stage: `pilot` or `whole`.
        number: of the step within its stage, from 1.
        of: steps of that stage.
        cell: what became of it.
        place: where it is in the grid, in words: its values on the axes that have several.
        finished: its result; None: it failed.
        seconds: it took.
        left: seconds that the rest of the study will take; None: nothing is known yet.
    """

    stage: str
    number: int
    of: int
    cell: StudyCell
    place: str
    finished: Finished | None
    seconds: float
    left: float | None


def check_cells(declared: DeclaredStudy) -> tuple[DeclaredStudy, list[str]]:
    """Return the study as it is made, and what settings mean nothing to some of its runs.

    Raises:
        UserError: a run has a name, parameter or combination that cannot work; it says which run,
            and what is wrong.
    """
    backbones: list[tuple[BackboneSpec, str]] = []
    for cell in declared.cells:
        with _named(declared, cell):
            check_executor(cell.config)
            resolved = resolve(cell.config)
            name_fit_split(resolved, None)
            backbones.append((resolved.backbone, resolved.backbone_name))
    scorers = {spec.scorer for spec, _ in backbones}
    cells, notes = [], dict[str, None]()
    for cell, (spec, name) in zip(declared.cells, backbones, strict=True):
        config, ignored = without_unread(cell.config, spec.scorer, scorers)
        with _named(declared, cell):
            check_scope(config, spec, name)
        cells.append(replace(cell, config=config))
        for setting in ignored:
            notes[f"The runs of backbone {name!r} ignore {setting}: it {WHY[spec.scorer]}."] = None
    return replace(declared, cells=tuple(cells)), list(notes)


@contextmanager
def _named(declared: DeclaredStudy, cell: DeclaredCell) -> Iterator[None]:
    """Say of an error in which run of a study it is."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{declared.file}: {error}\nThis is of the run {in_words(cell.axes)}; [[exclude]]"
            " leaves combinations out, and a [[grid]] of its own has other settings."
        ) from None


def in_words(axes: Mapping[str, str]) -> str:
    """Return a cell's place on each axis: `dataset digits, seed 0`."""
    return ", ".join(f"{name} {label}" for name, label in axes.items())


def run_study(
    declared: DeclaredStudy,
    results: Path,
    tell: Callable[[Step], None] = lambda step: None,
    pilot_only: bool = False,
) -> Study:
    """Make every run of a study that is not stored yet.

    Args:
        declared: what its file says.
        results: where runs are stored.
        tell: called with each cell that was made, or failed.
        pilot_only: make the pilots, and no run whole.

    Raises:
        UserError: a name, a parameter or a combination cannot work; nothing was scored.
        StoreError: the disk is full; what was decided is kept.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    declared, notes = check_cells(declared)
    return _Course(declared, results, tell, notes).run(pilot_only)


class _Course:
    """The course of a study."""

    def __init__(
        self,
        declared: DeclaredStudy,
        results: Path,
        tell: Callable[[Step], None],
        notes: Sequence[str] = (),
    ) -> None:
        self.declared, self.results, self.tell = declared, results, tell
        self.study = start_study(declared, results)
        self.folder = study_folder(results, declared.name)
        self.cells = list(self.study.cells)
        self.shared, self.cluster, self.clock = SharedBackbone(), SharedCluster(), Clock()
        self.split: dict[str, Split] = {}  # the images of the last run, read once for the next
        self.written = 0.0
        self.said: set[str] = set()
        self._warn(notes)
        axes = [cell.axes for cell in self.cells]
        several = [n for n in self.study.axes if len({one.get(n) for one in axes}) > 1]
        self.varied = several or self.study.axes[:1]

    def run(self, pilot_only: bool) -> Study:
        try:
            write_study(self.folder, self.study, self.declared.text)
        except OSError as error:
            raise UserError(
                f"The study's folder {self.folder} cannot be written: {error}."
            ) from None
        stages = [PILOT] if self.declared.pilot else []
        stages += [] if pilot_only else [WHOLE]
        try:
            for position, stage in enumerate(stages):
                places = [p for p in self._order() if stage == WHOLE or self._wants_pilot(p)]
                later = len(stages) - position - 1
                self._stage(stage, places, later)
        finally:
            self.cluster.close()
            self._write()
        return self.study

    def _order(self) -> list[int]:
        """Return the places of the cells, those of one backbone next to each other."""
        groups: dict[str, list[int]] = {}
        for place, cell in enumerate(self.declared.cells):
            groups.setdefault(_of_backbone(cell), []).append(place)
        return [place for group in groups.values() for place in group]

    def _wants_pilot(self, place: int) -> bool:
        limit, known = self.declared.cells[place].config.limit, self.cells[place]
        if known.status in ("complete", "failed_samples", "pilot"):
            return False  # of what is stored, the whole run says whether it is still there
        return limit is None or limit > 2 * self.declared.pilot

    def _stage(self, stage: str, places: Sequence[int], later: int) -> None:
        for number, place in enumerate(places, start=1):
            began = time.perf_counter()
            finished = self._cell(stage, place, places[number:])
            seconds = time.perf_counter() - began
            if finished is not None:
                self._note(place, finished, seconds)
            left = self.clock.left(self._rest(stage, places[number:], later))
            cell = self.cells[place]
            where = in_words({n: v for n, v in cell.axes.items() if n in self.varied})
            self.tell(Step(stage, number, len(places), cell, where, finished, seconds, left))
            if time.perf_counter() - self.written > WRITE_EVERY:
                self._write()
        self._write()

    def _rest(self, stage: str, places: Sequence[int], later: int) -> list[tuple[int, int]]:
        """Return the cells that are left, of this stage and later, and how many images each has."""
        known = [cell.images for cell in self.cells if cell.images]
        usual = sum(known) // len(known) if known else 0
        whole = {p: self.declared.cells[p].config.limit or usual for p in self._order()}
        rest = [(p, self.declared.pilot if stage == PILOT else whole[p]) for p in places]
        return rest + (list(whole.items()) if later else [])

    def _cell(self, stage: str, place: int, rest: Sequence[int]) -> Finished | None:
        """Make one run, or of a pilot a part of it; None: it failed, and says why."""
        config = self.declared.cells[place].config
        if stage == PILOT:
            config = config.model_copy(update={"limit": self.declared.pilot})
        try:
            with offline(config.offline):
                prepared = prepare(config, split=self.split.get(_of_data(config)))
                self.split = {_of_data(config): prepared.split} if prepared.split else {}
                self._warn(prepared.warnings)
                run = sharing(prepared, self.shared, self._others(place, rest))
                finished = execute(run, self.cluster.executor_of(prepared))
        except StoreError:
            raise
        except Exception as error:
            interrupts.check()  # some library made another error of it
            self.shared.free()
            self.cluster.close()
            said = str(error) if isinstance(error, BenchError) else _unexpected(error)
            self._set(place, status="failed", error=said)
            return None
        summary, asked = finished.summary, self.declared.cells[place].config.limit
        total = summary.dataset.n_total
        images = min(total, asked or total)
        whole = summary.dataset.n_samples >= images
        status = "failed_samples" if summary.failed_samples else "complete"
        self._set(
            place,
            status=status if whole else "pilot",
            run_id=summary.run_id,
            images=images,
            error=f"{summary.failed_samples} images failed" if summary.failed_samples else None,
        )
        return finished

    def _others(self, place: int, rest: Sequence[int]) -> Iterator[RunConfig]:
        """Yield the settings of later runs with the same backbone, one for each set of prompts."""
        mine = self.declared.cells[place]
        seen = {_of_prompts(mine.config)}
        for other in (self.declared.cells[p] for p in rest):
            if _of_backbone(other) == _of_backbone(mine) and _of_prompts(other.config) not in seen:
                seen.add(_of_prompts(other.config))
                yield other.config

    def _note(self, place: int, finished: Finished, seconds: float) -> None:
        summary, cell = finished.summary, self.cells[place]
        n, scoring = summary.dataset.n_samples, summary.cost.seconds or 0.0
        left = max(0, (cell.images or n) - n)
        if finished.resumed:
            self.clock.note(place, seconds, 0.0, 0, left)
        else:
            self.clock.note(place, seconds, min(scoring, seconds), n, left)

    def _set(self, place: int, **changes: object) -> None:
        self.cells[place] = self.cells[place].model_copy(update=changes)

    def _warn(self, said: Sequence[str]) -> None:
        """Say each warning once, however many runs it is about."""
        for text in said:
            if text not in self.said:
                self.said.add(text)
                warnings.warn(text, BenchWarning, stacklevel=2)

    def _write(self) -> None:
        changes = {"cells": list(self.cells), "updated": now()}
        self.study = self.study.model_copy(update=changes)
        self.written = time.perf_counter()
        try:
            write_study(self.folder, self.study)
        except OSError as error:
            raise StoreError(
                f"{self.folder} cannot be written any more: {error}. The runs are kept."
            ) from error


def _of_backbone(cell: DeclaredCell) -> str:
    """Return what cells have in common that can share a loaded backbone, as far as names tell."""
    config = cell.config
    known, name = load_plugins().backbones, config.backbone
    own = known.get(name).parameters if name is not None and name in known else {}
    given = sorted(f"{k}={v}" for k, v in config.params.items() if k in own)
    named = (config.backbone, config.weights, config.revision, config.resolution, config.normalize)
    return repr((*named, config.dtype, config.tf32, given))


def _of_data(config: RunConfig) -> str:
    return repr([config.dataset, config.data_dir, *(getattr(config, n) for n in DATA_SETTINGS)])


def _of_prompts(config: RunConfig) -> str:
    return repr((config.dataset, config.data_dir, config.template, config.prompts))


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {error}"
