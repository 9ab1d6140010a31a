"""Looks: how often a split was evaluated. A test set that is looked at often wears out.

Whoever tries many settings on one test split, and reports the best, reports some luck. A look is a
finished run on the split with settings of its own; the same run again is none. `looks.jsonl` in the
results folder has a line for each, which stays when the run is deleted.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from pydantic import ValidationError

from bench.errors import BenchWarning, UserError
from bench.machine.files import read_bytes, regular_file
from bench.store.documents import Manifest
from bench.store.fields import Document, Name, RunId
from bench.store.folder import list_runs
from bench.store.runs import read_runs

LOOKS = "looks.jsonl"
MAX_LOOKS_BYTES = 100_000_000  # of it; 100,000 looks have about 30 million
FOR_CHOICES = ("train", "training", "val", "valid", "validation", "dev", "development")

# The dataset, its split, and the fingerprint of its data.
SplitKey = tuple[str, str, str]


class Look(Document):
    """One line of `looks.jsonl`."""

    dataset: Name
    """The registered name."""
    split: Name
    """Name of the split."""
    fingerprint: str
    """Fingerprint of the split's data."""
    run_id: RunId
    """Id of the run."""
    created: str
    """Time of the run's creation, in ISO 8601."""

    @property
    def key(self) -> SplitKey:
        """What looks are counted by."""
        return self.dataset, self.split, self.fingerprint


def look_of(manifest: Manifest) -> Look:
    """Return the look that a finished run is."""
    data = manifest.identity.dataset
    return Look(
        dataset=data.name,
        split=data.split,
        fingerprint=data.fingerprint,
        run_id=manifest.run_id,
        created=manifest.created,
    )


def is_test(split: str) -> bool:
    """Tell a split that results are reported on from one that settings are chosen on."""
    return split.lower() not in FOR_CHOICES


def record_look(results: Path, manifest: Manifest) -> None:
    """Write down that a run on a test split is finished, unless it is written down already.

    A disk that does not take it stops nothing: the run itself is stored. Only a regular file inside
    the folder is appended to.
    """
    if not is_test(manifest.dataset.split) or manifest.part is not None:
        return
    look = look_of(manifest)
    if any((known.key, known.run_id) == (look.key, look.run_id) for known in read_looks(results)):
        return
    line = look.model_dump_json().encode() + b"\n"
    with suppress(OSError):
        # A link is not followed, and a pipe is not waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(results / LOOKS, flags, 0o644)
        try:
            if S_ISREG(os.fstat(descriptor).st_mode):
                os.write(descriptor, line)  # at once, so that lines of two processes do not mix
                return
        finally:
            os.close(descriptor)
    if os.path.lexists(file := results / LOOKS) and (file.is_symlink() or not file.is_file()):
        warnings.warn(
            f"{file} is not a regular file: that {look.run_id} was finished is not written there.",
            BenchWarning,
            stacklevel=2,
        )


def read_looks(results: Path) -> Iterator[Look]:
    """Yield the looks that are written down in a results folder.

    Damaged lines, and a file that is not a regular one or is too large, are left out.
    """
    try:
        file = regular_file(results, LOOKS)
        lines = read_bytes(file, MAX_LOOKS_BYTES).splitlines() if file else []
    except (OSError, UserError):
        return
    for line in lines:
        with suppress(ValidationError):
            yield Look.model_validate_json(line)


def count_looks(folders: Iterable[Path]) -> dict[SplitKey, int]:
    """Return how many different runs were finished on each test split, in some folders of runs."""
    seen: dict[SplitKey, set[str]] = {}

    def left_out(path: Path, error: UserError) -> None:
        """What cannot be read is no look that can be counted."""

    there = [folder for folder in folders if folder.is_dir()]
    for look in (look for folder in there for look in read_looks(folder)):
        seen.setdefault(look.key, set()).add(look.run_id)
    for run in read_runs((p for f in there for p in list_runs(f)), left_out):
        if run.summary is not None and is_test(run.manifest.dataset.split):
            look = look_of(run.manifest)
            seen.setdefault(look.key, set()).add(look.run_id)
    return {key: len(runs) for key, runs in seen.items()}
