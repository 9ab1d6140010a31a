"""`bench check-data`: read a dataset completely and report problems."""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.contracts.specs import DatasetSpec
from bench.errors import BenchError, BenchWarning, UserError, quoted, some_of
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.split import Split
from bench.machine.cache import file_digest
from bench.machine.files import regular_file
from bench.machine.stages import counted

MAX_NAMED = 5  # maximum number of images or classes named per problem
SPLITS = ("test", "validation", "val", "valid", "train")  # tried if none are declared
# n01440764, class_12, c3, 0017, 5f2b9c… or empty: a text encoder cannot interpret them.
_LIKE_AN_ID = re.compile(r"(n|id|c|cls|class|label)?[ _-]?\d+|[0-9a-f]{8,}|", re.IGNORECASE)

_PROBLEMS = {
    "unreadable": ("image cannot be read", "images cannot be read"),
    "duplicates": ("image occurs twice", "images occur twice"),
    "conflict": ("image has two classes", "images have two classes"),
    "across": ("image is in another split too", "images are in another split too"),
}


@dataclass(frozen=True)
class Finding:
    """A problem of a dataset."""

    kind: str
    """`count`, `unreadable`, `duplicates`, `conflict`, `across`, `empty`, `names`, `checksum`,
    `split` or `warning`."""
    split: str | None  # None for the whole dataset
    said: str  # description in a sentence
    images: int = 0  # number of images with this problem


@dataclass
class DataReport:
    """Number of images per split, of classes in the last one (0 for items), and problems."""

    splits: dict[str, int] = field(default_factory=dict)
    classes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, split: str | None, sentence: str, images: int = 0) -> None:
        """Add one problem."""
        self.findings.append(Finding(kind, split, sentence, images))


def check_data(source: DataSource, split: str | None = None) -> DataReport:
    """Load `split`, or all splits that are declared or exist, and return the problems.

    Every image is decoded, except those of items.
    """
    # An unverified dataset warns that it needs this check.
    source = replace(source, spec=replace(source.spec, unverified=False))
    report = DataReport()
    seen: dict[str, tuple[str, str]] = {}  # hash of the pixels → the first sample and its split
    for name, loaded in _load_splits(source, split, report):
        count, expected = len(loaded.sample_ids), source.spec.splits.get(name)
        report.splits[name] = count
        report.classes = 0 if loaded.items else len(loaded.classes)
        if expected is not None and expected != count:
            problem = f"{count:,} images, but {expected:,} are declared"
            report.add("count", name, problem, abs(count - expected))
        if loaded.items is None:
            _check_classes(loaded, name, report)
            _check_images(loaded, name, seen, source.spec, report)
    _check_files(source, report)
    return report


def _load_splits(
    source: DataSource, split: str | None, report: DataReport
) -> Iterator[tuple[str, Split]]:
    """Yield the splits that can be loaded; record errors and warnings as problems."""
    spec = source.spec
    declared = [name for name in spec.splits if name != "all" or len(spec.splits) == 1]
    names: Sequence[str | None] = [split] if split else declared or [None, *SPLITS]
    done: set[str] = set()
    for name in names:
        if name in done:
            continue
        is_guess = split is None and not spec.splits and name is not None
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", BenchWarning)
                loaded = load_split(source, name)
        except BenchError as error:
            if not (is_guess and "no split" in str(error)):
                report.add("split", name, str(error))
            continue
        for warning in caught:
            if issubclass(warning.category, BenchWarning):
                report.add("warning", loaded.split, str(warning.message))
        if loaded.split not in done:
            done.add(loaded.split)
            yield loaded.split, loaded


def _check_classes(loaded: Split, name: str, report: DataReport) -> None:
    counts = Counter(loaded.labels)
    if empty := [c for label, c in enumerate(loaded.classes) if not counts[label]]:
        problem = f"{len(empty)} of {len(loaded.classes)} classes have no image:"
        report.add("empty", name, f"{problem} {_join_some(empty)}")
    if ids := [c for c in loaded.classes if _LIKE_AN_ID.fullmatch(c.strip())]:
        problem = f"{len(ids)} class names look like ids, which a text encoder cannot interpret:"
        remedy = "give them in words with --class-names FILE"
        report.add("names", name, f"{problem} {_join_some(ids)}; {remedy}")


def _check_images(
    loaded: Split,
    name: str,
    seen: dict[str, tuple[str, str]],
    spec: DatasetSpec,
    report: DataReport,
) -> None:
    """Decode every image; report unreadable ones and those with equal pixels."""
    images: dict[str, list[str]] = {kind: [] for kind in _PROBLEMS}
    label_of = dict(zip(loaded.sample_ids, loaded.labels, strict=True))
    samples = loaded.samples(loaded.sample_ids)
    for sample in counted(samples, f"Checking {name}", len(loaded.sample_ids)):
        try:
            picture = decode(sample.image).convert("RGB")
        except PixelsError as error:
            images["unreadable"].append(f"{sample.sample_id} ({error})")
        else:
            key = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
            other, where = seen.setdefault(key, (sample.sample_id, name))  # the first like it
            is_part = where == spec.within.get(name) or name == spec.within.get(where)
            if where != name and not is_part:
                images["across"].append(f"{sample.sample_id} is {other} of {where}")
            elif where == name and other != sample.sample_id:
                kind = "duplicates" if label_of[other] == sample.label else "conflict"
                images[kind].append(f"{sample.sample_id} is {other}")
    if len(images["duplicates"]) == spec.duplicates.get(name):  # as the dataset declares
        images["duplicates"].clear()
    for kind, names in images.items():
        if names:
            one, several = _PROBLEMS[kind]
            problem = one if len(names) == 1 else several
            report.add(kind, name, f"{len(names):,} {problem}: {_join_some(names)}", len(names))


def _check_files(source: DataSource, report: DataReport) -> None:
    checksums = {} if source.data_dir is None else source.spec.checksums
    for name, checksum in checksums.items():
        kind, _, declared = checksum.partition(":")
        try:
            file = regular_file(Path(str(source.data_dir)), name)
            if file is not None and (digits := file_digest(file, kind)) != declared:
                problem = f"{name} has the {kind} {digits}, but {declared} is declared"
                report.add("checksum", None, problem)
        except UserError as error:
            report.add("checksum", None, str(error))


def _join_some(names: Sequence[str]) -> str:
    return some_of([quoted(name)[1:-1] for name in names], MAX_NAMED)
