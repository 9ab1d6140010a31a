"""The parts of a run put together: their lines, their errors, and what is still missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError, quoted
from bench.machine.files import regular_file
from bench.store.cells import has_cells, part_path
from bench.store.decisions import FAILED, Decisions, join_decisions, read_decisions
from bench.store.documents import Manifest
from bench.store.draw_table import DRAWS
from bench.store.fields import without_none
from bench.store.folder import MANIFEST, read_manifest, shards_of, whole
from bench.store.journal import JOURNAL, read_lines
from bench.store.records import is_record

ERRORS = ("first_order", "errors")  # in this order: errors say that an image is complete
NOWHERE = -1


@dataclass(frozen=True)
class MergeSource:
    """A folder that holds a part of the run, and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """What a message calls it."""
        part = self.manifest.part
        return f"shard {part} ({self.path})" if part else str(self.path)


@dataclass(frozen=True)
class Merge:
    """What a merge will write. Only where each line stands is held, not the lines.

    Attributes:
        sources: the parts.
        samples: the images asked for, in the order of the split.
        asked: how many there are, those of absent parts included.
        source: int32 [n], the part that has each image's line; -1: none has.
        start: int64 [n], where the line begins in that part's journal.
        length: int32 [n], its length in bytes.
        answer: int64 [n], the prediction; -1 where the image failed.
    """

    sources: Sequence[MergeSource]
    samples: Sequence[str]
    asked: int
    source: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.int32]
    answer: NDArray[np.int64]

    @property
    def decided(self) -> int:
        """How many images have a line."""
        return int((self.source != NOWHERE).sum())

    @property
    def complete(self) -> bool:
        """Whether every image asked for has a line."""
        return self.decided >= self.asked

    def manifest(self) -> Manifest:
        """Return the manifest of the one run; where parts are absent, it says how many images."""
        manifests = [source.manifest for source in self.sources]
        largest = max(manifests, key=asked_of)
        if any(m.linearisation_cost is None for m in manifests) and largest.linearisation_cost:
            largest = largest.unpriced()
        largest = largest.as_unknown_as(manifests)
        return whole(
            largest,
            samples=list(self.samples),
            created=min(manifest.created for manifest in manifests),
            **without_none(asked=self.asked if len(self.samples) < self.asked else None),
        )

    def lines(self) -> Iterator[bytes]:
        """Yield the line of each decided image, in the order of the samples."""
        with ExitStack() as stack:
            journals = {
                number: stack.enter_context((self.sources[number].path / JOURNAL).open("rb"))
                for number in np.unique(self.source[self.source != NOWHERE]).tolist()
            }
            for index in np.flatnonzero(self.source != NOWHERE):
                journal = journals[int(self.source[index])]
                journal.seek(self.start[index])
                yield journal.read(self.length[index]).rstrip(b"\n") + b"\n"

    def decisions(self) -> Decisions:
        """Read the decided images part by part, so that never all lines are held at once."""
        found, places = [], []
        for number, source in enumerate(self.sources):
            chosen = np.flatnonzero(self.source == number)
            if len(chosen):
                samples = [self.samples[index] for index in chosen.tolist()]
                mine = source.manifest.model_copy(update={"samples": samples})
                found.append(read_decisions(source.path, mine, top=True))
                places.append(chosen)
        return join_decisions(found, np.argsort(np.concatenate(places)))

    def copy_errors(self, target: Path) -> None:
        """Put the kept errors of each image into the merged run, with what its draws are.

        Parts on the same disk take no more room: a part is never changed, only replaced.

        Raises:
            OSError: the disk is full or gone.
        """
        for source in self.sources:
            file = None if source.path == target else regular_file(source.path, DRAWS)
            if file and not (target / DRAWS).exists():
                _place(file, target / DRAWS)
        for kind in ERRORS:
            for number, source in enumerate(self.sources):
                if source.path == target or not (source.path / kind).is_dir():
                    continue
                (target / kind).mkdir(exist_ok=True)
                for index in np.flatnonzero(self.source == number).tolist():
                    name = self.samples[index]
                    if has_cells(source.path / kind, name) and not has_cells(target / kind, name):
                        part = part_path(source.path / kind, name)
                        _place(part, part_path(target / kind, name))


def find_parts(runs: Sequence[str], results: str) -> list[MergeSource]:
    """Return the folders that some runs, by id or folder, consist of.

    Raises:
        UserError: one is no run, or they are parts of different runs.
    """
    found: dict[str, Path] = {}
    for run in runs:
        for folder in (Path(run), Path(results, run)):
            paths = [path for path in shards_of(folder) if os.path.lexists(path / MANIFEST)]
            if os.path.lexists(folder / MANIFEST):
                paths.append(folder)
            if paths:
                found.update((os.path.realpath(path), path) for path in paths)
                break
        else:
            raise UserError(
                f"There is no run or shard {quoted(run)}, neither as a folder nor in"
                f" {quoted(results)}. `bench run … --shard 1/4` makes one."
            )
    if not found:
        raise UserError("Nothing to merge: name a run, or the folders of its shards.")
    return [MergeSource(path, read_manifest(path)) for path in found.values()]


def asked_of(manifest: Manifest) -> int:
    """Return how many images the whole run has, as one part of it knows."""
    return manifest.part.asked if manifest.part else manifest.total


def plan_merge(sources: Sequence[MergeSource]) -> Merge:
    """Find the line of each image.

    Raises:
        UserError: two parts give different answers for an image.
    """
    # Parts with errors first: where two have an image, the errors of the line taken are kept.
    sources = sorted(sources, key=lambda source: not (source.path / "errors").is_dir())
    samples = _in_order([source.manifest for source in sources])
    n, asked = len(samples), max(asked_of(source.manifest) for source in sources)
    merge = Merge(
        sources,
        samples,
        max(asked, n),
        np.full(n, NOWHERE, np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, np.int32),
        np.full(n, FAILED, np.int64),
    )
    places = {sample_id: place for place, sample_id in enumerate(samples)}
    for number in range(len(sources)):
        _find_lines(merge, number, places)
    return merge


def _find_lines(merge: Merge, number: int, places: dict[str, int]) -> None:
    source = merge.sources[number]
    n_classes = len(source.manifest.classes)
    journal = source.path / JOURNAL
    for start, length, record in read_lines(journal, lambda value: is_record(value, n_classes)):
        place = places.get(record["sample_id"])
        if place is None:
            continue
        answer = FAILED if record["error"] is not None else int(record["prediction"])
        holder = int(merge.source[place])
        if holder not in (NOWHERE, number):
            known = int(merge.answer[place])
            if FAILED not in (answer, known) and answer != known:
                classes = source.manifest.classes
                raise UserError(
                    f"{merge.sources[holder].name} and {source.name} give different answers for"
                    f" {quoted(record['sample_id'])}: {quoted(classes[known])} and"
                    f" {quoted(classes[answer])}. Leave one of them out."
                )
            if known != FAILED or answer == FAILED:
                continue
        merge.source[place], merge.answer[place] = number, answer
        merge.start[place], merge.length[place] = start, length


def _in_order(manifests: Sequence[Manifest]) -> list[str]:
    """Return the samples of all parts in the order of the split, as far as shards know it."""
    placed: dict[str, int] = {}
    for manifest in manifests:
        if manifest.part is not None:
            placed.update(zip(manifest.samples, manifest.part.places, strict=True))
    samples = sorted(placed, key=placed.__getitem__)
    others = (name for manifest in manifests for name in manifest.samples)
    return list(dict.fromkeys([*samples, *others]))


def missing_parts(merge: Merge) -> list[str]:
    """Return what is missing, in words: shards that are absent, and those not complete."""
    said = []
    parts = [s.manifest.part for s in merge.sources if s.manifest.part]
    counts = {part.count for part in parts}
    if len(merge.samples) < merge.asked and len(counts) == 1:
        count = counts.pop()
        absent = sorted({*range(1, count + 1)} - {part.index for part in parts})
        said += [f"shard {index}/{count} is absent" for index in absent]
    undecided = {merge.samples[i] for i in np.flatnonzero(merge.source == NOWHERE).tolist()}
    for source in merge.sources:
        if left := len(undecided.intersection(source.manifest.samples)):
            total = len(source.manifest.samples)
            said.append(f"{source.name} has decided {total - left:,} of {total:,}")
    return said


def _place(file: Path, target: Path) -> None:
    """Link a file, or copy it where that cannot be; it is there whole or not at all."""
    temporary = target.with_suffix(".partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(file, temporary)
    except OSError:
        shutil.copyfile(file, temporary)
    temporary.replace(target)
