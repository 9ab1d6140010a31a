"""Merging the shards of a run: finding the line of each image, and what is still missing."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.errors import UserError, quoted
from bench.machine.files import is_own_file, take_file
from bench.store.folder import MANIFEST, find_run, holds_shards, shards_of, whole_manifest
from bench.store.formats.cells import DRAWS, ERROR_FOLDERS, copy_part, has_part_file
from bench.store.formats.decisions import FAILED
from bench.store.formats.documents import Manifest, with_code_of
from bench.store.formats.fields import without_none
from bench.store.formats.journal import JOURNAL, is_record, read_lines
from bench.store.runs import StoredRun, read_run
from bench.store.shipped import is_shipped


class Line(NamedTuple):
    """A line in the journal of a source."""

    source: int  # index of the source
    start: int  # offset of the line in bytes
    length: int  # length of the line in bytes
    prediction: int  # predicted class, `FAILED` if the image failed


@dataclass(frozen=True)
class Merge:
    """The journal lines of a merged run; `plan_merge` finds them."""

    sources: Sequence[StoredRun]
    samples: Sequence[str]  # ids of the images, in the order of the split
    total: int  # number of images, including those of absent shards
    line_of: Mapping[str, Line]  # sample id → line; an undecided image has none

    @property
    def decided(self) -> int:
        """Number of images with a line, including failed ones."""
        return len(self.line_of)

    @property
    def complete(self) -> bool:
        """Whether every image has a line."""
        return self.decided >= self.total

    def manifest(self) -> Manifest:
        """Return the manifest of the merged run; `asked` is set if shards are absent."""
        manifests = [source.manifest for source in self.sources]
        largest = max(manifests, key=_whole_size)
        warnings = sorted({text for manifest in manifests for text in manifest.warnings or ()})
        return whole_manifest(
            with_code_of(largest.with_unknowns_of(manifests), manifests),
            samples=list(self.samples),
            created=min(manifest.created for manifest in manifests),
            **without_none(
                asked=self.total if len(self.samples) < self.total else None,
                warnings=warnings or None,
            ),
        )

    def lines(self) -> Iterator[bytes]:
        """Yield the line of each decided image, in the order of the samples."""
        with ExitStack() as stack:
            journals = {
                number: stack.enter_context((self.sources[number].path / JOURNAL).open("rb"))
                for number in {line.source for line in self.line_of.values()}
            }
            for line in (self.line_of[name] for name in self.samples if name in self.line_of):
                journal = journals[line.source]
                journal.seek(line.start)
                yield journal.read(line.length).rstrip(b"\n") + b"\n"

    def copy_errors(self, target: Path) -> None:
        """Copy each image's errors, and the table of draws, into the folder `target`."""
        for number, source in enumerate(self.sources):
            if (path := source.path) == target:
                continue
            if is_own_file(path, DRAWS) and not (target / DRAWS).exists():
                take_file(path, DRAWS, target / DRAWS)
            samples = [name for name, line in self.line_of.items() if line.source == number]
            for folder in (name for name in ERROR_FOLDERS if (path / name).is_dir()):
                for name in samples:
                    if not has_part_file(target / folder, name):
                        copy_part(path / folder, target / folder, name)


def find_parts(runs: Sequence[str], results: str) -> list[StoredRun]:
    """Return runs, given by id or folder, and their shards, each once (UserError if none)."""
    folders: dict[str, Path] = {}
    for run in runs:
        in_shards = (path for path in (Path(run), Path(results, run)) if holds_shards(path))
        folder = next(in_shards, None) or find_run(run, results)  # the former may not be merged yet
        if is_shipped(folder):
            raise UserError(
                f"{folder.name} is a published run, which came with the package whole: nothing"
                " is to be merged."
            )
        for path in (*shards_of(folder), folder):
            if os.path.lexists(path / MANIFEST):
                folders[os.path.realpath(path)] = path
    if not folders:
        raise UserError("Nothing to merge: name a run, or the folders of its shards.")
    return [read_run(path) for path in folders.values()]


def _whole_size(manifest: Manifest) -> int:
    return manifest.part.asked if manifest.part else manifest.total


def plan_merge(sources: Sequence[StoredRun]) -> Merge:
    """Find the line of each image, if possible with a prediction (UserError if two differ)."""
    # The first source that decided an image counts. Those with errors come first, to keep these.
    sources = sorted(sources, key=lambda source: not (source.path / "errors").is_dir())
    samples = _ordered_samples([source.manifest for source in sources])
    total = max(_whole_size(source.manifest) for source in sources)
    requested, line_of = set(samples), dict[str, Line]()
    for number, source in enumerate(sources):
        for name, line in _lines_of(source, number):
            earlier = line_of.get(name)
            if name not in requested:
                continue
            if earlier is not None and earlier.source != number:
                _refuse_other_prediction(name, sources, earlier, line)
                if earlier.prediction != FAILED or line.prediction == FAILED:
                    continue
            line_of[name] = line
    return Merge(sources, samples, max(total, len(samples)), line_of)


def _refuse_other_prediction(sample: str, runs: Sequence[StoredRun], a: Line, b: Line) -> None:
    if FAILED not in (a.prediction, b.prediction) and a.prediction != b.prediction:
        run_a, run_b = runs[a.source], runs[b.source]
        classes = [quoted(run_b.manifest.classes[line.prediction]) for line in (a, b)]
        raise UserError(
            f"{run_a.name} and {run_b.name} have different predictions for {quoted(sample)}:"
            f" {' and '.join(classes)}. Leave one of them out."
        )


def _lines_of(source: StoredRun, number: int) -> Iterator[tuple[str, Line]]:
    """Yield the sample id and the place of each line of a source, whose index is `number`."""
    n_classes = len(source.manifest.classes)
    lines = read_lines(source.path / JOURNAL, lambda value: is_record(value, n_classes))
    for start, length, record in lines:
        prediction = FAILED if record["error"] is not None else int(record["prediction"])
        yield record["sample_id"], Line(number, start, length, prediction)


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
    parts = [source.manifest.part for source in merge.sources if source.manifest.part]
    counts = {part.count for part in parts}
    if len(merge.samples) < merge.total and len(counts) == 1:
        [count] = counts
        absent = sorted({*range(1, count + 1)} - {part.index for part in parts})
        messages += [f"shard {index}/{count} is absent" for index in absent]
    undecided = set(merge.samples) - merge.line_of.keys()
    for source in merge.sources:
        if left := len(undecided.intersection(source.manifest.samples)):
            total = len(source.manifest.samples)
            messages.append(f"{source.name} has decided {total - left:,} of {total:,}")
    return messages
