"""`merge` makes one run of its shards."""

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

MAX_MISSING_SHOWN = 5  # parts in a message
ALIKE = ("classes", "prompts", "dataset", "strategy", "items")  # of the manifests of all parts


def merge(runs: Sequence[str], results: str = "results", partial: bool = False) -> Finished:
    """Make one run of its shards, below `results`; the same shards give the same run.

    Args:
        runs: the run, by id or folder, or the folders of its shards.
        results: folder of the runs.
        partial: accept missing or incomplete shards; the merged run is then incomplete.

    `UserError`: parts are missing or of different runs; `StoreError`: the disk is full.
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
        raise UserError(_missing_shards_message(planned))
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
        summary = summarize(manifest, decided, *_total_cost(shards or [_summary(parts[0])]))
        fits = [part.manifest.fitted for part in parts] + [s.fitted for s in shards if s]
        summary = summary.with_folder_and_fit(target, next(filter(None, fits), None))
        folder.finish(summary)
    return Finished(manifest, summary, target)


def _check_alike(parts: Sequence[MergeSource]) -> None:
    first = parts[0]
    for other in parts[1:]:
        if digest(first.manifest.identity) != digest(other.manifest.identity):
            differs = differing_identity(first.manifest, other.manifest)
            what = "; ".join(f"{name}: {a} and {b}" for name, (a, b) in differs.items())
            raise UserError(
                f"{first.name} and {other.name} are parts of different runs, {what or 'by version'}"
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


def _missing_shards_message(planned: Merge) -> str:
    missing = missing_parts(planned)
    left_out = len(missing) - MAX_MISSING_SHOWN
    more = f" and {left_out} more" if left_out > 0 else ""
    why = f": {', '.join(missing[:MAX_MISSING_SHOWN])}{more}" if missing else ""
    return (
        f"{planned.decided:,} of {planned.total:,} images are decided{why}. Run what is missing;"
        " --partial merges without it."
    )


def _summary(part: MergeSource) -> Summary | None:
    try:
        return read_summary(part.path)
    except UserError:  # damaged: its cost is not known
        return None


def _total_cost(summaries: Sequence[Summary | None]) -> tuple[float | None, int | None]:
    """Return the seconds of all parts, None where one is not known, and the largest memory."""
    costs = [summary.cost for summary in summaries if summary]
    seconds = [cost.total_seconds for cost in costs if cost.total_seconds is not None]
    memory = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
    total = sum(seconds) if len(seconds) == len(summaries) else None
    return total, max(memory, default=None)


def _state(target: Path) -> tuple[int, int] | None:
    try:
        journal = (target / JOURNAL).stat()
    except OSError:
        return None
    return journal.st_size, journal.st_mtime_ns
