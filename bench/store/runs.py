"""Reading many stored runs, for leaderboards, tables and pages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, warn_user
from bench.machine.files import regular_file
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Manifest
from bench.store.folder import MANIFEST, SHARDS, folders_with, read_manifest, shards_of
from bench.store.journal import JOURNAL
from bench.store.summary import Summary, read_summary

LeftOut = Callable[[Path, UserError], None]  # called with each unreadable path and its error


@dataclass(frozen=True)
class StoredRun:
    """A run's folder with its validated documents."""

    path: Path
    manifest: Manifest
    summary: Summary | None  # None if no `bench run` finished; may cover fewer images

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
    """Read a run's manifest and summary.

    Raises UserError if there is no run in `path`, its manifest is damaged, or its journal is not a
    regular file.
    """
    manifest = read_manifest(path)
    regular_file(path, JOURNAL)
    return StoredRun(path, manifest, read_summary(path, manifest))


def warn_left_out(path: Path, error: UserError) -> None:
    """Warn that a run or a file of results is left out. `path` is unused; see `LeftOut`."""
    warn_user(f"Left out: {error}")


def read_runs(paths: Iterable[Path], left_out: LeftOut = warn_left_out) -> Iterator[StoredRun]:
    """Yield the runs in some folders; calls `left_out` for each that cannot be read."""
    for path in paths:
        try:
            run = read_run(path)
        except UserError as error:
            left_out(path, error)
        else:
            yield run


def with_tags(paths: Sequence[Path], tags: Collection[str]) -> Sequence[Path]:
    """Return the folders of readable runs that have all `tags`; all folders without `tags`."""
    if not tags:
        return paths
    tagged: list[Path] = []
    for path in paths:
        with suppress(UserError):
            if set(tags) <= set(read_manifest(path).config.tags):
                tagged.append(path)
    return tagged


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
