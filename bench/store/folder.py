"""A run's folder, as anybody reads it."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.discovery.loading import load_plugins
from bench.errors import BenchWarning, UserError, quoted
from bench.store.cells import has_cells
from bench.store.documents import Manifest
from bench.store.fields import first_problem
from bench.store.files import read_json
from bench.store.identity import BackboneIdentity, digest
from bench.store.journal import JOURNAL, has_id, read_journal
from bench.store.journal_table import read_table
from bench.store.migrations import MANIFEST_FORMAT, migrated
from bench.store.records import is_record
from bench.store.shards import SHARDS, holds_shards
from bench.store.summary import Summary

MANIFEST, SUMMARY, LOCK = "manifest.json", "summary.json", ".lock"
ADDING = ".adding-"  # what a folder is called whose content is not checked yet


def missing(path: Path, manifest: Manifest, save_errors: bool) -> list[str] | None:
    """Return the samples that `manifest` asks for and the run in `path` has not decided.

    Returns:
        None where there is no such run.

    Raises:
        UserError: the manifest there is damaged.
    """
    if not os.path.lexists(path / MANIFEST):
        return None
    stored = read_manifest(path)
    if digest(stored.identity) != digest(manifest.identity):
        return None
    return undecided(path, stored, manifest.samples, save_errors)


def undecided(
    path: Path, manifest: Manifest, sample_ids: Sequence[str], save_errors: bool
) -> list[str]:
    """Return those of `sample_ids` that the run in `path` has not decided.

    Args:
        path: the run's folder.
        manifest: of the run.
        sample_ids: what is asked for.
        save_errors: whether an image without its recorded errors counts as undecided.
    """
    table = read_table(path, len(manifest.classes))
    done = set(table.filter(table["error"].is_null())["sample_id"].to_pylist())
    if save_errors:
        done = {i for i in done if has_cells(path / "errors", i)}
    return [sample_id for sample_id in sample_ids if sample_id not in done]


def read_manifest(path: Path) -> Manifest:
    """Read a run's manifest, of this format or an earlier one.

    Raises:
        UserError: there is none, it is damaged, or a newer version of the toolkit wrote it.
    """
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise UserError(f"{path} is not a run: it has no {MANIFEST}.")
    advice = (
        f"Its {JOURNAL} is not touched: delete the manifest, and the `bench run` that made it"
        " writes it again and keeps what was decided."
    )
    try:
        raw = read_json(path, MANIFEST)
    except UserError as error:
        raise UserError(f"{error} {advice}") from None
    written = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(written, int) and written > MANIFEST_FORMAT:
        raise UserError(
            f"{file} was written by a newer version of the toolkit (format {written}, this one"
            f" knows {MANIFEST_FORMAT}). Update with: pip install -U diffusion-classifier-bench"
        )
    try:
        manifest = Manifest.model_validate(migrated(raw) if isinstance(raw, dict) else raw)
    except ValidationError as error:
        said = f"{file} is not a run's manifest: {first_problem(error)}."
        raise UserError(f"{said} {advice}") from None
    _warn_of_correction(path, manifest.identity.backbone)
    return manifest


def _warn_of_correction(path: Path, backbone: BackboneIdentity) -> None:
    """Name a run of a backbone's earlier version, where that had an error."""
    spec = next((s for s in load_plugins().backbones if s.name == backbone.name), None)
    if spec and spec.correction and backbone.version < spec.version:
        warnings.warn(
            f"{path.name} was made with version {backbone.version} of backbone {spec.name!r}, now"
            f" {spec.version}. {spec.correction} Make the run again.",
            BenchWarning,
            stacklevel=1,  # one place, so that a run is named once
        )


def read_records(path: Path, n_classes: int | None = None) -> dict[str, Any]:
    """Return the latest record of each sample, by id, in the order first written.

    Args:
        path: the run's folder.
        n_classes: leave out, with a warning, what is no record of a run with so many classes.
    """
    good = has_id if n_classes is None else lambda value: is_record(value, n_classes)
    return {record["sample_id"]: record for record in read_journal(path / JOURNAL, good)}


def asked_records(path: Path, manifest: Manifest) -> list[Any]:
    """Return the records of the samples asked for, in the order of the manifest."""
    records = read_records(path, len(manifest.classes))
    return [records[sample_id] for sample_id in manifest.samples if sample_id in records]


def read_summary(path: Path) -> Summary | None:
    """Return the summary of a run; None where the run has none yet.

    Raises:
        UserError: it is damaged.
    """
    if not os.path.lexists(path / SUMMARY):
        return None
    try:
        return Summary.model_validate(read_json(path, SUMMARY))
    except ValidationError as error:
        raise UserError(
            f"{path / SUMMARY} is not a run's summary: {first_problem(error)}."
        ) from None


def find_run(run: str, results: str) -> Path:
    """Return the folder of a run named by id or by path.

    Raises:
        UserError: there is no such run.
    """
    candidates: Iterable[Path] = (Path(run), Path(results, run), Path(results, "published", run))
    for path in candidates:
        if os.path.lexists(path / MANIFEST):
            return path
    if holds_shards(Path(results, run)):
        raise UserError(
            f"{quoted(run)} is in shards. `bench results merge` makes one run of them; a shard by"
            " itself is named by its folder."
        )
    listing = "bench list runs"
    if results != "results":
        listing += f" --results {shlex.quote(results)}"
    raise UserError(
        f"There is no run {quoted(run)}, neither as a folder nor in {quoted(results)}."
        f" `{listing}` shows all."
    )


def list_runs(results: Path) -> list[Path]:
    """Return the folders of all runs below `results`, its `published/` included.

    Raises:
        UserError: `results` cannot be the name of a folder.
    """
    if "\0" in str(results):
        raise UserError(f"There is no folder {quoted(str(results))}.")
    return sorted(places(results, MANIFEST))


def places(results: Path, name: str) -> Iterator[Path]:
    """Yield the folders below `results` that hold a file of this name.

    A run's own folders are not entered: `errors/` may hold 200,000 files. Links are not followed.
    """
    for folder, below, files in os.walk(results):
        if name in files or name in below:  # whatever it is: who reads it says so
            yield Path(folder)
        run = MANIFEST in files or MANIFEST in below or (SHARDS in below and holds_shards(folder))
        below[:] = [n for n in below if not run and not n.startswith(ADDING)]


def to_json(value: Any) -> str:
    """Return indented JSON with a line's end."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
