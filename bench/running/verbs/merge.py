"""`merge`: one run of its shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.errors import StoreError, UserError, quoted
from bench.running.execute import Finished
from bench.stats.differences import differing_identity
from bench.stats.metrics import summarize, summary_so_far
from bench.store.folder import MANIFEST, read_manifest, read_summary
from bench.store.identity import digest
from bench.store.journal import JOURNAL
from bench.store.merging import Merge, MergeSource, find_parts, missing_parts, plan_merge
from bench.store.summary import Summary
from bench.store.writing import RunFolder

MAX_MISSING_SHOWN = 5  # missing parts in a message
ALIKE = ("classes", "prompts", "dataset", "strategy", "items")  # of the manifests of all parts


def merge(runs: Sequence[str], results: str = "results", partial: bool = False) -> Finished:
    """Make one run of its shards, below `results`; again with the same shards, the same one.

    Args:
        runs: the run, by id or folder, or the folders of its shards.
        results: where runs are stored, and the merged one will be.
        partial: accept that shards are missing or not complete. The run is then incomplete.

    Raises:
        UserError: there is nothing to merge, it does not belong together, or a part is missing.
        StoreError: the disk is full.
    """
    parts = find_parts(runs, results)
    target = Path(results, parts[0].manifest.run_id)
    places = {os.path.realpath(part.path) for part in parts}
    if os.path.realpath(target) not in places and os.path.lexists(target / MANIFEST):
        parts.append(MergeSource(target, read_manifest(target)))
    _check_alike(parts)
    before, planned = _state(target), plan_merge(parts)
    if not planned.decided:
        raise UserError(f"{parts[0].name}: no image is decided yet, so there is nothing to merge.")
    if not (planned.complete or partial):
        raise UserError(_said_missing(planned))
    manifest = planned.manifest()
    with RunFolder(target, manifest) as folder:
        if before not in (None, _state(target)):
            raise UserError(f"{target} changed while it was read. Merge again.")
        try:
            planned.copy_errors(target)
        except OSError as error:
            raise StoreError(
                f"{target} cannot be written: {error.strerror or error}. The shards are untouched;"
                " make room, and merge again."
            ) from error
        folder.replace(manifest, planned.lines())
        decided = planned.decisions()
        if not planned.complete:
            return Finished(manifest, summary_so_far(manifest, None, decided), target)
        shards = [_summary(part) for part in parts if part.path != target]
        summary = summarize(manifest, decided, *_sums(shards or [_summary(parts[0])]))
        known = [part.manifest.fitted for part in parts] + [one.fitted for one in shards if one]
        summary = summary.with_folder_and_fit(target, next((one for one in known if one), None))
        folder.finish(summary)
    return Finished(manifest, summary, target)


def _check_alike(parts: Sequence[MergeSource]) -> None:
    first = parts[0]
    for other in parts[1:]:
        if digest(first.manifest.identity) != digest(other.manifest.identity):
            differs = differing_identity(first.manifest, other.manifest)
            said = "; ".join(f"{name}: {a} and {b}" for name, (a, b) in differs.items())
            raise UserError(
                f"{first.name} and {other.name} are parts of different runs, {said or 'by version'}"
                ". Merge the shards of one command."
            )
        for name in ALIKE:
            a, b = (part.manifest.plain().get(name) for part in (first, other))
            if a != b:  # the identity's hashes can be copied, and records hold numbers of classes
                raise UserError(
                    f"The {name} of {first.name} and {other.name} differ: {_first_difference(a, b)}"
                    ". Shards of one command have the same, in the same order."
                )


def _first_difference(a: Any, b: Any) -> str:
    if isinstance(a, list) and isinstance(b, list):
        pairs = zip_longest(a, b)
        place, (a, b) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        return f"number {place} is {quoted(a)} and {quoted(b)}"
    return f"{quoted(a)} and {quoted(b)}"


def _said_missing(planned: Merge) -> str:
    said = missing_parts(planned)
    more = f" and {len(said) - MAX_MISSING_SHOWN} more" if len(said) > MAX_MISSING_SHOWN else ""
    why = f": {', '.join(said[:MAX_MISSING_SHOWN])}{more}" if said else ""
    return (
        f"{planned.decided:,} of {planned.asked:,} images are decided{why}. Run what is missing;"
        " --partial merges without it."
    )


def _summary(part: MergeSource) -> Summary | None:
    try:
        return read_summary(part.path)
    except UserError:  # damaged: its times are not known
        return None


def _sums(summaries: Sequence[Summary | None]) -> tuple[float | None, int | None]:
    """Return the seconds of all parts together, and the most memory that one took."""
    seconds = [one.cost.total_seconds if one else None for one in summaries]
    memory = [one.cost.peak_memory_bytes for one in summaries if one]
    known = [s for s in seconds if s is not None]
    total = sum(known) if len(known) == len(seconds) else None
    return total, max((m for m in memory if m is not None), default=None)


def _state(target: Path) -> tuple[int, int] | None:
    try:
        found = (target / JOURNAL).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
