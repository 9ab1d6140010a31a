"""`results/published/`: complete runs, small enough to commit, and the checks they must pass."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.boards.reported import REPORTED, ReportedResult, read_reported
from bench.errors import UserError
from bench.machine.cache import write_atomically
from bench.stats.metrics import metrics
from bench.store.decisions import as_decisions
from bench.store.folder import (
    asked_records,
    list_runs,
    places,
    read_manifest,
    read_summary,
    to_json,
)
from bench.store.identity import run_id
from bench.store.records import Record

FILES = ("manifest.json", "samples.jsonl", "summary.json")
MOST_BYTES = 2_000_000  # a run; 420 images take about 0.1 MB
DIGITS = 6  # significant ones a float32 score keeps
TOP = 5  # classes kept a record, as many as top5_accuracy needs


def publish_run(run: Path, published: Path) -> Path:
    """Copy a complete run into `published/<run_id>/`, small and free of this machine's paths.

    Per sample the five best classes are kept, and six significant digits. No image goes along.

    Raises:
        UserError: the run is not complete, or does not pass `problems`.
    """
    manifest, summary = read_manifest(run), read_summary(run)
    if summary is None:
        raise UserError(f"{run} is not complete; the same `bench run` finishes it.")
    records = [_compact(record) for record in asked_records(run, manifest)]
    if len(records) != summary.dataset.n_samples:
        raise UserError(
            f"{run}: the summary is of {summary.dataset.n_samples} images, {len(records)} are"
            " decided. The same `bench run` brings it up to date."
        )
    # What the records say today: a summary written by an older version may lack a metric.
    found_today = metrics(as_decisions(records), len(manifest.classes))
    summary = summary.model_copy(update={"metrics": found_today})
    target = Path(published, manifest.run_id)
    target.mkdir(parents=True, exist_ok=True)
    write_atomically(target / "manifest.json", to_json(_without_paths(manifest.plain())))
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    write_atomically(target / "samples.jsonl", lines)
    write_atomically(target / "summary.json", to_json(_without_paths(summary.plain())))
    if found := list(problems(target)):
        raise UserError(f"{run} cannot be published as it is: {'; '.join(found)}.")
    return target


def add_reported(file: Path, published: Path) -> list[ReportedResult]:
    """Add the reported results of a file to `published/reported.json`.

    Raises:
        UserError: an entry does not fit, or stands there already.
    """
    new, target = read_reported(file), published / REPORTED
    known = read_reported(target) if target.is_file() else []
    for result in new:
        if result in known:
            raise UserError(
                f"{target} has this result already: {result.dataset}/{result.split},"
                f" {result.backbone}, {result.strategy}."
            )
    published.mkdir(parents=True, exist_ok=True)
    rows = [result.model_dump(exclude_unset=True) for result in (*known, *new)]
    write_atomically(target, to_json(rows))
    return new


def validate(published: Path) -> list[str]:
    """Return what is wrong with the results in a folder, one line each; none: all is well."""
    found = [f"{run.name}: {problem}" for run in list_runs(published) for problem in problems(run)]
    for place in sorted(places(published, REPORTED)):
        try:
            read_reported(place / REPORTED)
        except UserError as error:
            found.append(str(error))
    return found


def problems(run: Path) -> Iterator[str]:
    """Yield what is wrong with a published run: its schema, its name, its figures, its files."""
    try:
        manifest, summary = read_manifest(run), read_summary(run)
    except UserError as error:
        yield str(error)
        return
    if summary is None:
        yield "it has no summary.json"
        return
    wanted = run_id(
        manifest.dataset.name, manifest.backbone.name, manifest.strategy.name, manifest.identity
    )
    if not wanted == manifest.run_id == summary.run_id == run.name:
        yield f"its identity makes it {wanted}, not {manifest.run_id} in {run.name}"
    for key in ("dataset", "backbone", "strategy"):
        said, known = (document.plain()[key] for document in (summary, manifest))
        if {**said, **known} != said:
            yield f"manifest and summary do not say the same of the {key}"
    records = asked_records(run, manifest)
    if len(records) != len(manifest.samples) or len(records) != summary.dataset.n_samples:
        yield f"{len(records)} records for {len(manifest.samples)} samples"
        return
    found = metrics(as_decisions(records), len(manifest.classes)).plain()
    for name, value in summary.metrics.plain().items():
        # Earlier versions gave a top-5 accuracy, of 1, where there are five classes or fewer.
        if name not in found or (found[name] is not None and not _close(value, found[name])):
            yield f"{name} is {found.get(name)} by its records, {value} by its summary"
    if summary.cost.evaluations != sum(r["evaluations"] for r in records):
        yield "its evaluations are not the sum over its records"
    yield from _odd_files(run)


def _odd_files(run: Path) -> Iterator[str]:
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    for path in files:
        if path.relative_to(run).as_posix() not in FILES:
            yield f"{path.name} does not belong there: only {', '.join(FILES)}"
    size = sum(path.stat().st_size for path in files)
    if size > MOST_BYTES:
        yield f"it takes {size:,} bytes, more than {MOST_BYTES:,}"


def _close(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_close, value, wanted))
    return math.isclose(value, wanted, abs_tol=1e-9)


def _compact(record: Record) -> Any:
    top = [[index, _rounded(score), draws] for index, score, draws in record["top"][:TOP]]
    return {**{key: _rounded(value) for key, value in record.items()}, "top": top}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _without_paths(value: Any) -> Any:
    """Return the value with absolute paths cut to their last part, and no results_dir."""
    if isinstance(value, Mapping):
        return {k: _without_paths(v) for k, v in value.items() if k != "results_dir"}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
