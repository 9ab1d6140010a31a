"""Add runs and reported results to the published results, `results/published/`.

A run is copied to a temporary folder, checked there, and only then moved to its place.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.contracts.specs import FOLDER
from bench.discovery.loading import load_plugins
from bench.errors import UserError, some_of
from bench.machine.files import read_text, write_atomically, writing
from bench.reports.leaderboard.published import ALLOWED_FILES, Totals, find_problems
from bench.reports.leaderboard.rows import REPORTED_FILE, ReportedResult, read_reported
from bench.stats.metrics.summarise import metrics
from bench.store.folder import ADDING_PREFIX, MANIFEST, requested_records
from bench.store.formats.decisions import as_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import to_json
from bench.store.formats.journal import JOURNAL, Record
from bench.store.locking import LOCK, SHORT_LOCK
from bench.store.runs import StoredRun, read_run
from bench.store.summary import AUDIT, SUMMARY, read_swept

SIGNIFICANT_DIGITS = 6  # of the numbers in a record
PUBLISHED_TOP = 5  # number of classes kept per record, as many as top5_accuracy needs


def publish_run(
    run: Path, published: Path, subset: bool = False, private: bool = False, replace: bool = False
) -> Path:
    """Copy a complete run to `published/<run_id>/` and return that folder.

    The copy is small: it keeps the five best classes of each sample, six significant digits, no
    image, and no absolute path of this machine. `subset` accepts a run on part of the split,
    `private` data that others cannot get; leaderboards label both. `replace` overwrites a published
    run that has the same id and other content. Raises UserError, and changes nothing, if the run is
    incomplete, not accepted, or fails a check of `find_problems`.
    """
    stored, totals = read_run(run), Totals(published)
    manifest = _accepted_manifest(stored, totals, subset, private)
    contents = _published_contents(stored, manifest)
    target = Path(published, manifest.run_id)
    with writing(published):
        published.mkdir(parents=True, exist_ok=True)
        if _has_contents(target, contents):
            return target
        if os.path.lexists(target) and not replace:
            raise UserError(f"{target} already exists, with other content. --replace changes it.")
        with TemporaryDirectory(
            prefix=ADDING_PREFIX, dir=published, ignore_cleanup_errors=True
        ) as temporary:
            new = Path(temporary, target.name)
            new.mkdir()
            for name, content in contents.items():
                write_atomically(new / name, content)
            if errors := list(find_problems(new, totals)):
                raise UserError(f"{run} cannot be published as it is: {'; '.join(errors)}.")
            _move_in(new, target)
    return target


def _accepted_manifest(run: StoredRun, totals: Totals, subset: bool, private: bool) -> Manifest:
    """Return the manifest of a run as it is published; UserError if the run is not accepted."""
    manifest, data = run.manifest, run.require_summary().dataset
    if data.n_samples < data.n_total and not subset:
        raise UserError(
            f"{manifest.run_id} has {data.n_samples:,} of the split's {data.n_total:,} images. Run"
            " the whole split, or add it with --subset, labelled as a subset and without a rank."
        )
    if not (reason := _not_public(manifest, totals)):
        return manifest
    if not private:
        raise UserError(
            f"{reason} Others cannot repeat it; --private adds it, labelled as private data."
        )
    return manifest.model_copy(update={"private_data": True})


def _published_contents(run: StoredRun, manifest: Manifest) -> dict[str, str]:
    """Return the files of a published run: name → content. UserError if its summary is outdated."""
    summary = run.require_summary()
    records = [_compact_record(record) for record in requested_records(run.path, manifest)]
    if len(records) != summary.dataset.n_samples:
        raise UserError(
            f"{run.path}: the summary covers {summary.dataset.n_samples} images, but"
            f" {len(records)} are decided. The same `bench run` command updates it."
        )
    # Compute the metrics again, because a summary of an older version may lack some.
    current = metrics(as_decisions(records), manifest.classes, manifest.items)
    summary = summary.model_copy(update={"metrics": current})
    contents = {
        MANIFEST: to_json(strip_paths(manifest.plain())),
        JOURNAL: json_lines(records),
        SUMMARY.name: to_json(strip_paths(summary.plain())),
    }
    if swept := read_swept(run.path, manifest):
        contents[AUDIT.name] = json_lines(swept.values())
    return contents


def add_reported(file: Path, published: Path) -> list[ReportedResult]:
    """Add the results in a file to `published/reported.json`, and return them.

    Raises UserError, and changes nothing, if a result is invalid or is already there.
    """
    new, target = read_reported(file.resolve()), published / REPORTED_FILE
    added = read_reported(target) if os.path.lexists(target) else []
    for index, result in enumerate(new):
        if result in added or result in new[:index]:
            raise UserError(
                f"{target} already has this result: {result.dataset}/{result.split},"
                f" {result.backbone}, {result.strategy}."
            )
    rows = [result.model_dump(exclude_unset=True) for result in (*added, *new)]
    with writing(published):
        published.mkdir(parents=True, exist_ok=True)
        write_atomically(target, to_json(rows))
    return new


def _not_public(manifest: Manifest, totals: Totals) -> str | None:
    """Return why others cannot get the run's data, or None if they can."""
    data, registered = manifest.dataset, load_plugins().datasets
    if manifest.identity.dataset.name == FOLDER:
        return f"{manifest.run_id} is on a folder of images, {data.name!r}."
    if manifest.identity.dataset.name not in registered:
        return f"{manifest.run_id} is on {data.name!r}, which is not a registered dataset."
    if problem := totals.problem(manifest):
        return f"{manifest.run_id}: {problem}."
    return None


def _has_contents(target: Path, contents: Mapping[str, str]) -> bool:
    try:
        return {path.name: read_text(path) for path in target.iterdir()} == contents
    except (OSError, ValueError):
        return False


def _move_in(new: Path, target: Path) -> None:
    """Move a folder to `target` and delete the folder that was there."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target} is a link or a file, not a folder. Move it away first.")
    # Outside the temporary folder, so that the old run survives if the second move fails.
    old = target.with_name(f"{ADDING_PREFIX}{os.getpid()}-old")
    if target.exists():
        names = {path.name for path in target.iterdir()}
        if foreign := names.difference(ALLOWED_FILES, (LOCK, SHORT_LOCK)):
            raise UserError(
                f"{target} has {some_of(sorted(foreign))}, which does not belong there and would be"
                " deleted. Move it away first."
            )
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def json_lines(rows: Iterable[Any]) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _compact_record(record: Record) -> Any:
    best = record["top"][:PUBLISHED_TOP]
    top = [[index, _round_value(score), draws] for index, score, draws in best]
    return {**{key: _round_value(value) for key, value in record.items()}, "top": top}


def _round_value(value: Any) -> Any:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def strip_paths(value: Any) -> Any:
    """Return a JSON value with absolute paths cut to their last part and `results_dir` removed."""
    if isinstance(value, Mapping):
        return {k: strip_paths(v) for k, v in value.items() if k != "results_dir"}
    if isinstance(value, list):
        return [strip_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
