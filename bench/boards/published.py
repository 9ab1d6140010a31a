"""`results/published/`: complete runs, small enough to commit, and the checks they must pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.boards.consistency import Totals, contradictions
from bench.boards.reported import REPORTED, read_reported
from bench.errors import UserError
from bench.stats.metrics import summarize
from bench.store.folder import (
    LOCK,
    MANIFEST,
    SUMMARY,
    asked_records,
    list_runs,
    places,
)
from bench.store.identity import run_id
from bench.store.journal import JOURNAL
from bench.store.runs import read_run

FILES = (MANIFEST, JOURNAL, SUMMARY)
MOST_BYTES = 2_000_000  # a run; 420 images take about 0.1 MB
ROUNDED = 1e-3  # what six digits of each record's cost may move a sum, and a rounded time
OF_MANIFEST = ("run_id", "dataset", "backbone", "strategy")
# What does not follow from the records: see `TRUST`.
TRUSTED = frozenset({"fitted", "results_dir", "linearisation_cost", "replayed_from"})


def validate(published: Path) -> list[str]:
    """Return what is wrong with the results in a folder, one line each; none: all is valid."""
    totals = Totals(published)
    found = [
        f"{run.name}: {problem}"
        for run in list_runs(published)
        for problem in problems(run, totals=totals)
    ]
    for place in sorted(places(published, REPORTED)):
        try:
            read_reported(place / REPORTED)
        except UserError as error:
            found.append(str(error))
    return found


def problems(run: Path, name: str | None = None, totals: Totals | None = None) -> Iterator[str]:
    """Yield what is wrong with a published run: its schema, its name, its figures, its files.

    Args:
        run: its folder.
        name: the folder's name where it is going to be; None: it is there.
        totals: of the published runs that it is, or will be, among; None: of those beside it.
    """
    try:
        stored = read_run(run)
    except UserError as error:
        yield str(error)
        return
    manifest, summary = stored.manifest, stored.summary
    if summary is None:
        yield "it has no summary.json"
        return
    wanted = run_id(
        manifest.dataset.name, manifest.backbone.name, manifest.strategy.name, manifest.identity
    )
    if not wanted == manifest.run_id == summary.run_id == (name or run.name):
        yield f"its identity makes it {wanted}, not {manifest.run_id} in {name or run.name}"
    yield from contradictions(manifest, totals or Totals(run.parent))
    if summary.replayed_from != manifest.replayed_from:
        yield "manifest and summary do not name the same replayed run"
    records = asked_records(run, manifest)
    if len(records) != len(manifest.samples) or len(records) != summary.dataset.n_samples:
        yield f"{len(records)} records for {len(manifest.samples)} samples"
        return
    cost = summary.cost
    today = summarize(manifest, records, cost.total_seconds, cost.peak_memory_bytes)
    yield from _differences("", today.plain(), summary.plain())
    if cost.linearisation_cost is not None:
        gradients = today.cost.linearisations * cost.linearisation_cost
        priced = (today.cost.evaluations + gradients) / len(records)
        per_image = today.cost.equivalents_per_image
        if not math.isclose(priced, per_image, rel_tol=ROUNDED):
            yield f"its cost per image is {per_image}, by its price {priced}"
    yield from _odd_files(run)


def _odd_files(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*")):
        if path.relative_to(run).as_posix() not in (*FILES, LOCK):
            yield f"{path.name} does not belong there: only {', '.join(FILES)}"
    size = sum((run / name).stat().st_size for name in FILES)
    if size > MOST_BYTES:
        yield f"it takes {size:,} bytes, more than {MOST_BYTES:,}"


def _differences(place: str, computed: Any, stored: Any) -> Iterator[str]:
    """Yield each value of a summary that differs from the one computed, with its place."""
    if isinstance(computed, dict) and isinstance(stored, dict):
        for name in sorted(stored.keys() - TRUSTED):
            yield from _differences(f"{place}.{name}".strip("."), computed.get(name), stored[name])
        return
    # Earlier versions gave no value where there is one today, and a top-5 accuracy, of 1, where
    # there are five classes or fewer.
    comparable = stored is not None and (place, computed, stored) != (
        "metrics.top5_accuracy",
        None,
        1,
    )
    if comparable and not _close(computed, stored, ROUNDED * place.startswith("cost")):
        source = "manifest" if place.partition(".")[0] in OF_MANIFEST else "records"
        yield f"its {place} is {computed} by its {source}, {stored} by its summary"


def _close(computed: Any, stored: Any, tolerance: float) -> bool:
    if isinstance(computed, list) and isinstance(stored, list):
        pairs = zip(computed, stored, strict=False)
        return len(computed) == len(stored) and all(_close(*pair, tolerance) for pair in pairs)
    if isinstance(computed, float) and isinstance(stored, float | int):
        return math.isclose(computed, stored, rel_tol=tolerance, abs_tol=1e-9)
    return bool(computed == stored)
