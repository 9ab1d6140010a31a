"""Run a study: many ordinary runs, one after another.

Every run first scores a few images (the pilot), then all of them, so a study that is interrupted
still has a result for every run. If a cell fails, it is reported and the others continue.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np

from bench import interrupts
from bench.contracts.strategy import Floats
from bench.errors import BenchError, StoreError, UserError, images_failed, warn_user
from bench.inputs.split import Split
from bench.inputs.subsets import shuffle_samples
from bench.machine.offline import offline
from bench.running.execute import Finished
from bench.running.lifecycle import LoadedResources, prepare_run, run_prepared
from bench.running.parts.settings import SETTINGS, RunConfig, about
from bench.running.prepare import Preloaded
from bench.running.risk import with_chosen_params
from bench.running.study.file import DeclaredStudy
from bench.running.study.plan import check_cells, in_words
from bench.running.study.values import DATA, POOLED, Entries
from bench.stats.sequential.betting import Standings, Stop, accuracy_anytime, standings
from bench.store.folder import read_manifest
from bench.store.formats.decisions import read_decisions
from bench.store.formats.documents import StoredConfig
from bench.store.formats.fields import without_none
from bench.store.formats.identity import digest
from bench.store.locking import LOCK, LockedFolder, locked
from bench.store.studies import (
    STUDY,
    BoardStanding,
    MethodStanding,
    Study,
    StudyCell,
    study_folder,
    write_study,
)

WRITE_EVERY = 2.0  # seconds between writes of the state within a stage

PILOT, WHOLE = "pilot", "whole"
Methods = Mapping[str, Sequence[int]]  # method → indices of its cells


@dataclass(frozen=True)
class Step:
    """A cell that has just finished a stage, or failed."""

    stage: str  # `pilot`, `whole`, or the images of a round: `50 images`
    number: int  # number of the step within its stage, from 1
    of: int  # number of steps of that stage
    cell: StudyCell
    place: str  # labels of the cell on the axes that vary, in words
    finished: Finished | None  # None if the cell failed
    seconds: float  # duration
    left: float | None  # estimated remaining seconds of the study; None if not known yet


def run_study(
    declared: DeclaredStudy,
    results: Path,
    tell: Callable[[Step], None] = lambda step: None,
    pilot_only: bool = False,
) -> Study:
    """Make all runs of a study, or resume them; runs that are complete are not repeated.

    `tell` is called with each cell that has finished a stage or failed. With `pilot_only`, the
    study stops after the pilot, or after the first round. Raises UserError before anything is
    scored, and StoreError if the disk is full; decided images are kept.
    """
    declared, notes = check_cells(declared)
    for note in notes:
        warn_user(note)
    path = study_folder(results, declared.name)
    with ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(locked(path, LOCK, wait=0))
            study = start_study(declared, results)
            write_study(folder, study, declared.text)
        except (OSError, StoreError) as error:
            reason = error.__cause__ or error
            raise UserError(f"The study's folder {path} cannot be written: {reason}.") from None
        return _Course(declared, study, folder, tell).run(pilot_only)


class _Course:
    """The state of a study while its runs are made. Cells are referred to by index ("place")."""

    def __init__(
        self,
        declared: DeclaredStudy,
        study: Study,
        folder: LockedFolder,
        tell: Callable[[Step], None],
    ) -> None:
        self.declared, self.study, self.folder, self.tell = declared, study, folder, tell
        self.shared, self.clock = LoadedResources(), Clock()
        self.split: dict[str, Split] = {}  # data settings of the last run → its split
        self.written = 0.0
        backbones = [cell.backbone for cell in declared.cells]
        rank = {key: number for number, key in enumerate(dict.fromkeys(backbones))}
        # Indices of the cells, grouped by backbone.
        self.order = sorted(range(len(backbones)), key=lambda place: rank[backbones[place]])
        axes = [cell.axes for cell in study.cells]
        varied = [name for name in study.axes if len({at.get(name) for at in axes}) > 1]
        shown = {*(varied or study.axes[:1])}
        self.words = [in_words({n: v for n, v in at.items() if n in shown}) for at in axes]

    def run(self, pilot_only: bool) -> Study:
        try:
            if self.declared.pilot:
                self._stage(PILOT, [p for p in self.order if self._wants_pilot(p)], pilot_only)
            if self.declared.stop is not None:
                self._rounds(pilot_only)
            elif not pilot_only:
                self._stage(WHOLE, self.order, last=True)
        finally:
            self.shared.close()
            self._write()
        return self.study

    def _rounds(self, first_only: bool) -> None:
        """On each dataset, score the same images with all open methods, round by round."""
        results = Path(self.declared.cells[0].config.results)
        boards: Mapping[str, Methods] = boards_of(self.declared)
        for board, methods in boards.items():
            standing, n = None, self.declared.first_round
            while standing is None or not (standing.decided or standing.images == standing.total):
                open_methods = still_open(methods, standing)
                cells = {place for method in open_methods for place in methods[method]}
                places = [place for place in self.order if place in cells]
                self._stage(f"{n:,} images", places, last=True, n=n)
                failed = {place for place in places if self.study.cells[place].status == "failed"}
                methods = {name: own for name, own in methods.items() if failed.isdisjoint(own)}
                if not methods:
                    break
                folders = {
                    place: results / str(self.study.cells[place].run_id)
                    for place in chain.from_iterable(methods.values())
                }
                order = _random_order(*self.split.values())
                standing = board_standing(board, methods, folders, order, n, self.declared)
                others = [s for s in self.study.standings if s.board != board]
                self.study = self.study.model_copy(update={"standings": [*others, standing]})
                n = next_round(n, self.declared.growth, standing.total)
                if first_only:
                    break

    def _wants_pilot(self, place: int) -> bool:
        limit = self.declared.cells[place].config.limit
        if self.study.cells[place].status in ("complete", "failed_samples", "pilot"):
            return False  # the whole run checks whether the stored images still exist
        return limit is None or limit > 2 * self.declared.pilot

    def _stage(self, stage: str, places: Sequence[int], last: bool, n: int | None = None) -> None:
        """Score cells, or their first `n` images in random order, one by one, and report each.

        `last`: no stage with all cells follows.
        """
        for number, place in enumerate(places, start=1):
            began = time.perf_counter()
            finished = self._cell(stage, place, places[number:], n)
            seconds, cell = time.perf_counter() - began, self.study.cells[place]
            if finished is not None:
                done = finished.summary.dataset.n_samples
                scored, outstanding = 0 if finished.resumed else done, (cell.images or done) - done
                scoring = min(finished.summary.cost.seconds or 0.0, seconds) if scored else 0.0
                self.clock.note(place, seconds, scoring, scored, max(0, outstanding))
            left, words = self.clock.left(self._rest(stage, places[number:], last)), self.words
            self.tell(Step(stage, number, len(places), cell, words[place], finished, seconds, left))
            if time.perf_counter() - self.written > WRITE_EVERY:
                self._write()
        self._write()

    def _rest(self, stage: str, places: Sequence[int], last: bool) -> list[tuple[int, int]]:
        """Return the cells left in this stage and the next one, each with its number of images."""
        sizes = [cell.images for cell in self.study.cells if cell.images]
        mean = sum(sizes) // len(sizes) if sizes else 0
        whole = {p: self.declared.cells[p].config.limit or mean for p in self.order}
        rest = [(p, self.declared.pilot if stage == PILOT else whole[p]) for p in places]
        return rest if last else rest + list(whole.items())

    def _cell(self, stage: str, place: int, rest: Sequence[int], n: int | None) -> Finished | None:
        """Score one run, or its pilot. None if it failed; its cell then has the reason."""
        config = self.declared.cells[place].config
        if stage == PILOT:
            config = config.model_copy(update={"limit": self.declared.pilot})
        try:
            finished = self._finished(config, n, self._later(place, rest))
        except StoreError:
            raise
        except Exception as error:
            interrupts.check()  # a library may have replaced an interrupt by another exception
            self.shared.free()
            self.shared.close()
            kind = "" if isinstance(error, BenchError) else f"unexpected {type(error).__name__}: "
            self._set(place, status="failed", error=f"{kind}{error}")
            return None
        summary, failed = finished.summary, finished.summary.failed_samples
        total = summary.dataset.n_total
        images = min(total, self.declared.cells[place].config.limit or total)
        images = images if n is None else summary.dataset.n_samples
        whole = "failed_samples" if failed else "complete"
        self._set(
            place,
            status=whole if summary.dataset.n_samples >= images else "pilot",
            run_id=summary.run_id,
            images=images,
            error=images_failed(failed) if failed else None,
        )
        return finished

    def _finished(self, config: RunConfig, n: int | None, later: Iterable[RunConfig]) -> Finished:
        """Make a run, or score its first `n` images in random order."""
        with offline(config.offline):
            data = config.key_of("data")
            prepared = prepare_run(config, Preloaded(split=self.split.get(data)))
            self.split = {data: prepared.split}
            prepared = with_chosen_params(prepared)
            if n is not None:
                first = prepared.manifest.narrowed(_random_order(prepared.split)[:n])
                prepared = replace(prepared, manifest=first)
            return run_prepared(prepared, self.shared, later)

    def _later(self, place: int, rest: Sequence[int]) -> Iterator[RunConfig]:
        """Yield settings of later runs with the same backbone, one per distinct set of prompts."""
        mine = self.declared.cells[place]
        distinct = {mine.config.key_of("data", "prompts"): mine.config}
        for other in (self.declared.cells[p] for p in rest):
            if other.backbone == mine.backbone:
                distinct.setdefault(other.config.key_of("data", "prompts"), other.config)
        yield from list(distinct.values())[1:]

    def _set(self, place: int, **changes: object) -> None:
        self.study.cells[place] = self.study.cells[place].model_copy(update=changes)

    def _write(self) -> None:
        self.study = self.study.model_copy(update={"updated": now()})
        self.written = time.perf_counter()
        try:
            write_study(self.folder, self.study)
        except OSError as error:
            raise StoreError(
                f"{self.folder.path} cannot be written any more: {error}. The runs are kept."
            ) from error


def _random_order(split: Split) -> list[str]:
    return shuffle_samples(split.sample_ids, split.fingerprint)


# Settings that may differ between a cell and its stored run.
RESUMABLE_CHANGES = {n for n, s in SETTINGS.items() if s.identity is None} - {*about("data")}

# Entries that `study.json` stores as they are; a stopping rule is left out if there is none.
ENTRIES = {*Study.model_fields} & {*Entries.model_fields} - {"stop", "strict"}


def start_study(declared: DeclaredStudy, results: Path) -> Study:
    """Return a study with the cells of its file and, if it was started before, their stored state.

    Failed cells become waiting. A cell whose `limit` changed becomes a pilot: its stored images may
    not be those of the new limit.
    """
    folder, begun = study_folder(results, declared.name), now()
    stored: dict[str, StudyCell] = {}
    created = begun
    if (earlier := STUDY.read(folder, "")) is not None:
        created = earlier.created
        stored = {_cell_key(cell.config): cell for cell in earlier.cells}
    cells = []
    for cell in declared.cells:
        config = StoredConfig.model_validate(cell.config.model_dump(mode="json"))
        before = stored.get(_cell_key(config))
        figure = without_none(published=cell.published)
        fresh = StudyCell(axes=dict(cell.axes), config=config, **figure)
        if before is not None:
            kept = {"run_id": before.run_id, "images": before.images, "status": before.status}
            if before.status == "failed":
                kept["status"] = "waiting"
            elif before.config.limit != config.limit and before.status != "waiting":
                kept |= {"status": "pilot", "images": None}
            fresh = fresh.model_copy(update=kept)
        cells.append(fresh)
    return Study(
        **declared.model_dump(include=ENTRIES),
        file=declared.file,
        created=created,
        updated=begun,
        axes=list(declared.axes),
        cells=cells,
        **without_none(stop=declared.stop, strict=declared.strict or None),
    )


def _cell_key(config: StoredConfig) -> str:
    """Return a hash of the settings that a cell and its stored run must have in common."""
    return digest(config.model_dump(mode="json", exclude=RESUMABLE_CHANGES))


def now() -> str:
    """Return the UTC time in ISO 8601, as documents store it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Clock:
    """Measured durations of cells, from which the remaining time is estimated."""

    overhead: list[float] = field(default_factory=list)  # seconds per cell other than scoring
    per_image: dict[int, float] = field(default_factory=dict)  # cell → seconds of scoring per image
    images: dict[int, int] = field(default_factory=dict)  # cell → images left to score

    def note(self, place: int, seconds: float, scoring: float, scored: int, left: int) -> None:
        """Record the seconds of a cell; `scored` images is 0 if the run was complete before."""
        self.overhead.append(max(0.0, seconds - scoring))
        self.images[place] = left
        if scored:
            self.per_image[place] = scoring / scored

    def left(self, cells: Sequence[tuple[int, int]]) -> float | None:
        """Return the seconds that `cells` will take; None before the first measurement.

        A cell's number of images is used only if the cell was not measured.
        """
        if not self.overhead:
            return None
        overhead = sum(self.overhead) / len(self.overhead)
        mean = sum(self.per_image.values()) / len(self.per_image) if self.per_image else 0.0
        return sum(
            overhead + self.per_image.get(place, mean) * self.images.get(place, images)
            for place, images in cells
        )


def boards_of(declared: DeclaredStudy) -> dict[str, dict[str, list[int]]]:
    """Return the indices of the cells by dataset and method.

    Runs that differ only in seed or template are one method. Its result is their mean.
    """
    apart = [name for name in declared.axes if name not in (*DATA, *POOLED)]
    varied = [n for n in apart if len({cell.axes.get(n) for cell in declared.cells}) > 1] or apart
    boards: dict[str, dict[str, list[int]]] = {}
    for place, cell in enumerate(declared.cells):
        board = "/".join(cell.axes[name] for name in DATA if name in cell.axes)
        method = " ".join(cell.axes[name] for name in varied if name in cell.axes)
        boards.setdefault(board, {}).setdefault(method or "the method", []).append(place)
    return boards


def still_open(methods: Methods, standing: BoardStanding | None) -> list[str]:
    """Return the methods that score the next round: all of them before the first standing."""
    if standing is None:
        return list(methods)
    verdicts = {method.method: method.verdict for method in standing.methods}
    return [method for method in methods if verdicts[method] == "open"]


def next_round(n: int, growth: float, total: int) -> int:
    """Return the number of images per method after the next round, at most `total`."""
    return min(total, max(n + 1, round(n * growth)))


def board_standing(
    board: str,
    methods: Methods,
    folders: Mapping[int, Path],
    order: Sequence[str],
    n: int,
    entries: Entries,
) -> BoardStanding:
    """Return the result of all rounds so far on one dataset.

    `folders` maps the index of a cell to its run. The last round scored the first `n` images of the
    split in random `order`.
    """
    assert entries.stop is not None
    results: dict[str, Floats] = {}
    for method, places in methods.items():
        runs = [read_decisions(folders[p], read_manifest(folders[p])) for p in places]
        columns = [run.right_in(order[:n]) for run in runs]
        shortest = min(map(len, columns))
        results[method] = np.mean([column[:shortest] for column in columns], axis=0)
    if len(results) == 1:
        shown = Standings({}, (), next(iter(results)))
    else:
        shown = standings(results, entries.stop, entries.margin, entries.strict)
    return BoardStanding(
        board=board,
        decided=shown.decided,
        images=min(n, len(order)),
        total=len(order),
        methods=[
            MethodStanding(
                method=method,
                verdict=_verdict(method, shown, entries.stop),
                images=len(right),
                shown_after=shown.out.get(method),
                p=shown.p[method] if method in shown.out else None,
                accuracy=float(right.mean()),
                anytime_ci95=accuracy_anytime(right),
            )
            for method, right in sorted(
                results.items(),
                key=lambda item: (entries.stop == "best" and -len(item[1]), -item[1].mean()),
            )
        ],
        unresolved=list(shown.unresolved),
    )


def _verdict(method: str, shown: Standings, stop: Stop) -> str:
    if method in shown.open:
        return "open"
    if stop == "ranked":
        return "ranked"
    return "best" if method == shown.leader else "left"
