"""Reading many stored runs, and counting how many different ones have used a test split.

The best of many settings on one test split is partly best by chance, so reports show the number. A
finished run uses the test split that it is on; repeating the same run is not another use.
`looks.jsonl` in the results folder has a line per use, which remains if the run is deleted.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from bench.errors import UserError, did_you_mean, quoted, warn_user
from bench.machine.files import read_bytes, regular_file
from bench.machine.stages import counted
from bench.store.folder import MANIFEST, SHARDS, folders_with, list_runs, read_manifest, shards_of
from bench.store.formats.decisions import Decisions, read_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Document, Name, RunId
from bench.store.formats.journal import JOURNAL
from bench.store.summary import Summary, read_summary

OnUnreadable = Callable[[Path, UserError], None]  # called with each unreadable path and its error


@dataclass(frozen=True)
class StoredRun:
    """A run's folder with its validated documents."""

    path: Path
    manifest: Manifest
    summary: Summary | None  # None if no `bench run` finished; may cover fewer images

    @property
    def name(self) -> str:
        """Name in messages about a merge."""
        part = self.manifest.part
        return f"shard {part} ({self.path})" if part else str(self.path)

    @property
    def complete(self) -> bool:
        """Whether the summary covers all images."""
        images = self.manifest.total
        return self.summary is not None and self.summary.dataset.n_samples == images

    def decided(self, top: bool = False) -> Decisions:
        """Read the decisions, of which there may be none; see `read_decisions`."""
        return read_decisions(self.path, self.manifest, top)

    def require_decisions(self) -> Decisions:
        """Read the decisions with `top`; raise UserError if there are none yet."""
        decided = self.decided(top=True)
        if not len(decided):
            raise UserError(
                f"{self.path} has no decided image yet; the same `bench run` resumes it."
            )
        return decided

    def require_summary(self) -> Summary:
        """Return the summary; raise UserError if the run has none yet."""
        if self.summary is None:
            raise UserError(f"{self.path} is not complete; the same `bench run` finishes it.")
        return self.summary


def read_run(path: Path) -> StoredRun:
    """Read a run's manifest and summary (UserError without a run, or if a file is damaged)."""
    manifest = read_manifest(path)
    regular_file(path, JOURNAL)
    return StoredRun(path, manifest, read_summary(path, manifest))


def warn_left_out(path: Path, error: UserError) -> None:
    """Warn that a run or a file of results is left out. `path` is unused; see `OnUnreadable`."""
    warn_user(f"Left out: {error}")


def read_runs(paths: Iterable[Path], left_out: OnUnreadable = warn_left_out) -> Iterator[StoredRun]:
    """Yield the runs in some folders; calls `left_out` for each that cannot be read."""
    paths = list(paths)
    for path in counted(paths, "Reading runs", len(paths), "runs"):
        try:
            run = read_run(path)
        except UserError as error:
            left_out(path, error)
        else:
            yield run


def check_stored(kind: str, names: Iterable[str], stored: Collection[str]) -> None:
    """Raise UserError for a name, of a tag or a dataset, that is not among those of stored runs."""
    for name in names:
        if name not in stored:
            close = did_you_mean(name, stored)
            raise UserError(f"No stored run has the {kind} {quoted(name)}.{close}")


def with_tags(paths: Sequence[Path], tags: Collection[str]) -> Sequence[Path]:
    """Return the folders, or those of runs with all `tags` (UserError for one that none has)."""
    if not tags:
        return paths
    tags_of: dict[Path, set[str]] = {}
    for path in paths:
        with suppress(UserError):
            tags_of[path] = {*read_manifest(path).config.tags}
    check_stored("tag", tags, set().union(*tags_of.values()))
    return [path for path, own in tags_of.items() if own.issuperset(tags)]


def list_shards(results: Path) -> list[Path]:
    """Return the folders of shards below `results` that are not in a complete merged run."""
    unmerged: list[Path] = []
    for run in folders_with(results, SHARDS):
        merged: set[str] = set()
        with suppress(UserError):  # the run is not merged, or unreadable
            stored = read_run(run)
            merged = set(stored.manifest.samples if stored.complete else ())
        for shard in (shard for shard in shards_of(run) if (shard / MANIFEST).exists()):
            with suppress(UserError):  # an unreadable shard is listed
                if merged and merged.issuperset(read_manifest(shard).samples):
                    continue
            unmerged.append(shard)
    return sorted(unmerged)


LOOKS = "looks.jsonl"
MAX_LOOKS_BYTES = 100_000_000  # more than three times the size of 100,000 uses
NOT_TEST = ("train", "training", "val", "valid", "validation", "dev", "development")

SplitKey = tuple[str, str, str]  # dataset, split and fingerprint of the data


class TestSetUse(Document):
    """One line of `looks.jsonl`: a finished run on a test split."""

    dataset: Name  # registered name
    split: Name
    fingerprint: str
    run_id: RunId
    created: str

    @property
    def key(self) -> SplitKey:
        """The split, as a key for counting."""
        return self.dataset, self.split, self.fingerprint


def test_set_use(manifest: Manifest) -> TestSetUse:
    """Return a finished run as a use of the split that it is on."""
    data = manifest.identity.dataset
    return TestSetUse(
        dataset=data.name,
        split=data.split,
        fingerprint=data.fingerprint,
        run_id=manifest.run_id,
        created=manifest.created,
    )


def is_test(split: str) -> bool:
    """Return whether a split is for reporting results and not for training or choosing settings."""
    return split.lower() not in NOT_TEST


def record_test_set_use(results: Path, manifest: Manifest) -> None:
    """Record a finished run on a test split once, if possible; a shard is no use of its own."""
    if not is_test(manifest.dataset.split) or manifest.part is not None:
        return
    use = test_set_use(manifest)
    if any((old.key, old.run_id) == (use.key, use.run_id) for old in read_test_set_uses(results)):
        return
    if os.path.lexists(file := results / LOOKS) and (file.is_symlink() or not file.is_file()):
        warn_user(f"{file} is not a regular file, so {use.run_id} is not recorded there.")
        return
    with suppress(OSError), file.open("ab", buffering=0) as lines:
        # In one call, so that processes do not mix their lines.
        lines.write(use.model_dump_json().encode() + b"\n")


def read_test_set_uses(results: Path) -> Iterator[TestSetUse]:
    """Yield the recorded uses of a results folder, without damaged lines or unreadable files."""
    try:
        file = regular_file(results, LOOKS)
        lines = read_bytes(file, MAX_LOOKS_BYTES).splitlines() if file else []
    except (OSError, UserError):
        return
    for line in lines:
        with suppress(ValidationError):
            yield TestSetUse.model_validate_json(line)


def count_test_set_uses(folders: Iterable[Path]) -> dict[SplitKey, int]:
    """Return how many different runs, recorded or only stored, finished on each test split."""
    seen: dict[SplitKey, set[str]] = {}
    for folder in folders:
        runs = list_runs(folder) if folder.is_dir() else []
        stored = read_runs(runs, lambda path, error: None)  # unreadable runs are not counted
        finished = (run.manifest for run in stored if run.summary is not None)
        of_runs = (test_set_use(m) for m in finished if is_test(m.dataset.split))
        for use in chain(read_test_set_uses(folder), of_runs):
            seen.setdefault(use.key, set()).add(use.run_id)
    return {key: len(runs) for key, runs in seen.items()}
