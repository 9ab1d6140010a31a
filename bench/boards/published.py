"""`results/published/`: complete runs, small enough to commit, and the checks they must pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.boards.reported import REPORTED, read_reported
from bench.errors import UserError
from bench.stats.metrics import cost, metrics
from bench.store.decisions import as_decisions
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


def validate(published: Path) -> list[str]:
    """Return what is wrong with the results in a folder, one line each; none: all is valid."""
    found = [f"{run.name}: {problem}" for run in list_runs(published) for problem in problems(run)]
    for place in sorted(places(published, REPORTED)):
        try:
            read_reported(place / REPORTED)
        except UserError as error:
            found.append(str(error))
    return found


def problems(run: Path, name: str | None = None) -> Iterator[str]:
    """Yield what is wrong with a published run: its schema, its name, its figures, its files.

    Args:
        run: its folder.
        name: the folder's name where it is going to be; None: it is there.
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
    for key in ("dataset", "backbone", "strategy"):
        said, known = (document.plain()[key] for document in (summary, manifest))
        if {**said, **known} != said:
            yield f"manifest and summary do not say the same of the {key}"
    records = asked_records(run, manifest)
    if len(records) != len(manifest.samples) or len(records) != summary.dataset.n_samples:
        yield f"{len(records)} records for {len(manifest.samples)} samples"
        return
    found = metrics(as_decisions(records), len(manifest.classes), manifest.items).plain()
    for name, value in summary.metrics.plain().items():
        # Earlier versions gave a top-5 accuracy, of 1, where there are five classes or fewer.
        if name not in found or (found[name] is not None and not _close(value, found[name])):
            yield f"{name} is {found.get(name)} by its records, {value} by its summary"
    costs = cost(records, None, None)
    if summary.cost.evaluations != costs.evaluations:
        yield "its evaluations are not the sum over its records"
    per_image = summary.cost.equivalents_per_image, costs.equivalents_per_image
    if not math.isclose(*per_image, rel_tol=1e-3):
        yield "its cost per image is {}, by its records {}".format(*per_image)
    price = summary.cost.linearisation_cost
    if price is not None:
        priced = (costs.evaluations + costs.linearisations * price) / len(records)
        if not math.isclose(priced, costs.equivalents_per_image, rel_tol=1e-3):
            yield f"its cost per image is {costs.equivalents_per_image}, by its price {priced}"
    yield from _odd_files(run)


def _odd_files(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*")):
        if path.relative_to(run).as_posix() not in (*FILES, LOCK):
            yield f"{path.name} does not belong there: only {', '.join(FILES)}"
    size = sum((run / name).stat().st_size for name in FILES)
    if size > MOST_BYTES:
        yield f"it takes {size:,} bytes, more than {MOST_BYTES:,}"


def _close(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_close, value, wanted))
    if value is None or wanted is None:
        return True  # a metric that a version did not give
    return math.isclose(value, wanted, abs_tol=1e-9)
