"""Merging the shards of a run: finding the line of each image, and what is still missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Ints
from bench.errors import UserError, quoted
from bench.machine.files import link_or_copy, regular_file
from bench.store.cells import ERROR_FOLDERS, has_part_file, link_part
from bench.store.decisions import FAILED
from bench.store.documents import Manifest, with_code_of
from bench.store.draw_table import DRAWS
from bench.store.fields import without_none
from bench.store.folder import MANIFEST, read_manifest, shards_of, whole_manifest
from bench.store.journal import JOURNAL, read_lines
from bench.store.records import is_record

NO_SOURCE = -1  # for an image without a line


@dataclass(frozen=True)
class MergeSource:
    """A folder with a part of the run, and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Name of the source in messages."""
        part = self.manifest.part
        return f"shard {part} ({self.path})" if part else str(self.path)


@dataclass(frozen=True)
class Merge:
    """Locations, filled in by `plan_merge`, of the journal lines of a merged run with n images."""

    sources: Sequence[MergeSource]
    samples: Sequence[str]  # ids of the n images, in the order of the split
    total: int  # number of images, including those of absent shards
    source: NDArray[np.int32]  # [n], index of the source of each line, `NO_SOURCE` without a line
    start: Ints  # [n], offset of the line in its journal, in bytes
    length: NDArray[np.int32]  # [n], length of the line in bytes
    prediction: Ints  # [n], predicted class, `FAILED` if the image failed or has no line

    @property
    def decided(self) -> int:
        """Number of images with a line, including failed ones."""
        return int((self.source != NO_SOURCE).sum())

    @property
    def complete(self) -> bool:
        """Whether every image has a line."""
        return self.decided >= self.total

    def manifest(self) -> Manifest:
        """Return the manifest of the merged run; `asked` is set if shards are absent."""
        manifests = [source.manifest for source in self.sources]
        largest = max(manifests, key=_whole_size)
        largest = with_code_of(largest.with_unknowns_of(manifests), manifests)
        return whole_manifest(
            largest,
            samples=list(self.samples),
            created=min(manifest.created for manifest in manifests),
            **without_none(asked=self.total if len(self.samples) < self.total else None),
        )

    def lines(self) -> Iterator[bytes]:
        """Yield the line of each decided image, in the order of the samples."""
        with ExitStack() as stack:
            journals = {
                number: stack.enter_context((self.sources[number].path / JOURNAL).open("rb"))
                for number in np.unique(self.source[self.source != NO_SOURCE]).tolist()
            }
            for index in np.flatnonzero(self.source != NO_SOURCE):
                journal = journals[int(self.source[index])]
                journal.seek(self.start[index])
                yield journal.read(self.length[index]).rstrip(b"\n") + b"\n"

    def copy_errors(self, target: Path) -> None:
        """Link or copy each image's errors, and the table of draws, into the folder `target`."""
        others = [(n, s.path) for n, s in enumerate(self.sources) if s.path != target]
        for number, path in others:
            file = regular_file(path, DRAWS)
            if file and not (target / DRAWS).exists():
                link_or_copy(file, target / DRAWS)
            for folder in ERROR_FOLDERS:
                samples = self._samples_of(number) if (path / folder).is_dir() else []
                for name in samples:
                    if not has_part_file(target / folder, name):
                        link_part(path / folder, target / folder, name)

    def _samples_of(self, number: int) -> list[str]:
        return [self.samples[i] for i in np.flatnonzero(self.source == number).tolist()]


def find_parts(runs: Sequence[str], results: str) -> list[MergeSource]:
    """Return the folders of runs and of their shards, without duplicates.

    `runs` are ids or folders. Raises UserError if one of them is not a run, or there are none.
    """
    folders: dict[str, Path] = {}
    for run in runs:
        for folder in (Path(run), Path(results, run)):
            paths = [path for path in shards_of(folder) if os.path.lexists(path / MANIFEST)]
            if os.path.lexists(folder / MANIFEST):
                paths.append(folder)
            if paths:
                folders.update((os.path.realpath(path), path) for path in paths)
                break
        else:
            raise UserError(
                f"There is no run or shard {quoted(run)}, neither as a folder nor in"
                f" {quoted(results)}. `bench run … --shard 1/4` makes one."
            )
    if not folders:
        raise UserError("Nothing to merge: name a run, or the folders of its shards.")
    return [MergeSource(path, read_manifest(path)) for path in folders.values()]


def _whole_size(manifest: Manifest) -> int:
    return manifest.part.asked if manifest.part else manifest.total


def plan_merge(sources: Sequence[MergeSource]) -> Merge:
    """Find the line of each image. A line with a prediction is preferred to one of a failed image.

    Raises UserError if two sources have different predictions for an image.
    """
    # The first line of an image is used. Sources with errors come first, to keep its errors too.
    sources = sorted(sources, key=lambda source: not (source.path / "errors").is_dir())
    samples = _ordered_samples([source.manifest for source in sources])
    n, total = len(samples), max(_whole_size(source.manifest) for source in sources)
    merge = Merge(
        sources,
        samples,
        total=max(total, n),
        source=np.full(n, NO_SOURCE, np.int32),
        start=np.zeros(n, np.int64),
        length=np.zeros(n, np.int32),
        prediction=np.full(n, FAILED, np.int64),
    )
    places = {sample_id: index for index, sample_id in enumerate(samples)}
    for number in range(len(sources)):
        _find_lines(merge, number, places)
    return merge


def _find_lines(merge: Merge, number: int, places: dict[str, int]) -> None:
    """Enter the lines of source `number` into `merge`; `places`: sample id → index."""
    source = merge.sources[number]
    n_classes = len(source.manifest.classes)
    journal = source.path / JOURNAL
    for start, length, record in read_lines(journal, lambda value: is_record(value, n_classes)):
        index = places.get(record["sample_id"])
        if index is None:
            continue
        prediction = FAILED if record["error"] is not None else int(record["prediction"])
        holder = int(merge.source[index])
        if holder not in (NO_SOURCE, number):
            earlier = int(merge.prediction[index])
            if FAILED not in (prediction, earlier) and prediction != earlier:
                classes = source.manifest.classes
                raise UserError(
                    f"{merge.sources[holder].name} and {source.name} have different predictions for"
                    f" {quoted(record['sample_id'])}: {quoted(classes[earlier])} and"
                    f" {quoted(classes[prediction])}. Leave one of them out."
                )
            if earlier != FAILED or prediction == FAILED:
                continue
        merge.source[index], merge.prediction[index] = number, prediction
        merge.start[index], merge.length[index] = start, length


def _ordered_samples(manifests: Sequence[Manifest]) -> list[str]:
    """Return all sample ids: those of shards in the order of the split, then the others."""
    placed: dict[str, int] = {}
    for manifest in manifests:
        if manifest.part is not None:
            placed.update(zip(manifest.samples, manifest.part.places, strict=True))
    samples = sorted(placed, key=placed.__getitem__)
    others = (name for manifest in manifests for name in manifest.samples)
    return list(dict.fromkeys([*samples, *others]))


def missing_parts(merge: Merge) -> list[str]:
    """Return a message for each absent shard and each incomplete source."""
    messages = []
    parts = [s.manifest.part for s in merge.sources if s.manifest.part]
    counts = {part.count for part in parts}
    if len(merge.samples) < merge.total and len(counts) == 1:
        count = counts.pop()
        absent = sorted({*range(1, count + 1)} - {part.index for part in parts})
        messages += [f"shard {index}/{count} is absent" for index in absent]
    undecided = {merge.samples[i] for i in np.flatnonzero(merge.source == NO_SOURCE).tolist()}
    for source in merge.sources:
        if left := len(undecided.intersection(source.manifest.samples)):
            total = len(source.manifest.samples)
            messages.append(f"{source.name} has decided {total - left:,} of {total:,}")
    return messages
