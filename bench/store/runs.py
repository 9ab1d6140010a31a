"""Reading of stored runs, for boards, tables and pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, warn_user
from bench.machine.files import regular_file, write_atomically
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Manifest
from bench.store.folder import (
    MANIFEST,
    SHARDS,
    list_runs,
    places,
    read_manifest,
    read_summary,
    shards_of,
)
from bench.store.journal import JOURNAL
from bench.store.summary import Summary

LeftOut = Callable[[Path, UserError], None]  # called with each unreadable path and its error


@dataclass(frozen=True)
class StoredRun:
    """A run's folder with its documents, checked; the summary may be of fewer images, or None."""

    path: Path
    manifest: Manifest
    summary: Summary | None

    @property
    def complete(self) -> bool:
        """Whether the summary is of all images."""
        images = self.manifest.total
        return self.summary is not None and self.summary.dataset.n_samples == images

    def decided(self, top: bool = False) -> Decisions:
        """Read the decisions, none or more; see `read_decisions`."""
        return read_decisions(self.path, self.manifest, top)

    def some_decided(self) -> Decisions:
        """Read the decisions with `top`; UserError: there are none yet."""
        decided = self.decided(top=True)
        if not len(decided):
            raise UserError(
                f"{self.path} has no decided image yet; the same `bench run` resumes it."
            )
        return decided

    def finished(self) -> Summary:
        """Return the summary; UserError: the run has none yet."""
        if self.summary is None:
            raise UserError(f"{self.path} is not complete; the same `bench run` finishes it.")
        return self.summary


def read_run(path: Path) -> StoredRun:
    """Read a run's documents; UserError: no run, or a file is damaged or not a regular one."""
    manifest, summary = read_manifest(path), read_summary(path)
    regular_file(path, JOURNAL)
    return StoredRun(path, manifest, summary)


def warn(path: Path, error: UserError) -> None:
    """Warn that a run, or a file of results, is left out."""
    warn_user(f"Left out: {error}")


def read_runs(paths: Iterable[Path], left_out: LeftOut = warn) -> Iterator[StoredRun]:
    """Yield the runs in some folders; `left_out` is called for each that cannot be read."""
    for path in paths:
        try:
            run = read_run(path)
        except UserError as error:
            left_out(path, error)
        else:
            yield run


def with_tags(paths: Sequence[Path], tags: Collection[str]) -> Sequence[Path]:
    """Return the folders of runs that have all of some tags; without tags, all folders."""
    if not tags:
        return paths
    tagged: list[Path] = []
    for path in paths:
        with suppress(UserError):  # what cannot be read has no tag
            if set(tags) <= set(read_manifest(path).config.tags):
                tagged.append(path)
    return tagged


def list_shards(results: Path) -> list[Path]:
    """Return the folders of the shards below `results` that are not part of a merged run yet."""
    unmerged: list[Path] = []
    for run in places(results, SHARDS):
        merged: set[str] = set()
        with suppress(UserError):  # it is not merged, or cannot be read
            stored = read_run(run)
            merged = set(stored.manifest.samples if stored.complete else ())
        shards = (shard for shard in shards_of(run) if (shard / MANIFEST).exists())
        unmerged += [shard for shard in shards if not (merged and _is_part(shard, merged))]
    return sorted(unmerged)


def _is_part(shard: Path, merged: set[str]) -> bool:
    with suppress(UserError):
        return merged.issuperset(read_manifest(shard).samples)
    return False


MARK = "protocol.json"


def mark(folder: Path, protocol: str) -> None:
    """Record in a run's folder that it repeats a protocol; a failure to write is ignored."""
    with suppress(OSError):
        write_atomically(folder / MARK, json.dumps({"protocol": protocol}))


def reproduced(results: Path) -> dict[str, list[str]]:
    """Return protocol → names of the runs below a folder that repeat it."""
    runs: dict[str, list[str]] = {}
    for path in list_runs(results) if results.is_dir() else ():
        with suppress(OSError, ValueError, KeyError, TypeError):
            name = json.loads((path / MARK).read_text("utf-8"))["protocol"]
            runs.setdefault(str(name), []).append(path.name)
    return runs
