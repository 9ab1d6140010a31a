"""Finding and reading the folders of runs and of their shards.

A shard of a run has a folder `results/<run_id>/shards/3-of-16/`, with the same files as a run's.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError, did_you_mean, quoted, refusing, some_of, warn_user
from bench.store.errata import touched
from bench.store.formats.cells import has_part_file
from bench.store.formats.documents import MANIFEST_FORMAT, Manifest, migrate
from bench.store.formats.fields import check_format, read_json, validated
from bench.store.formats.identity import digest
from bench.store.formats.journal import JOURNAL, has_id, is_record, read_lines, read_table
from bench.store.shipped import is_published, published_note, shipped_folder

MANIFEST, SHARDS = "manifest.json", "shards"
LATEST = "latest"  # names the newest run in commands
MIN_PART_OF_ID = 4  # characters of a run's id that suffice to name it, if no other run has them
REPAIR = (
    "Delete the manifest and repeat the `bench run` that made it: it writes the manifest again and"
    f" keeps the decisions in {JOURNAL}."
)
ADDING_PREFIX = ".adding-"  # of a folder that is being added and not validated yet


def missing_samples(path: Path, manifest: Manifest, save_errors: bool) -> list[str] | None:
    """Return the samples of `manifest` still to decide; None if `path` has no such run."""
    if not os.path.lexists(path / MANIFEST):
        return None
    stored = read_manifest(path)
    if digest(stored.identity) != digest(manifest.identity):
        return None
    return undecided_samples(path, stored, manifest.samples, save_errors)


def undecided_samples(
    path: Path, manifest: Manifest, sample_ids: Sequence[str], save_errors: bool
) -> list[str]:
    """Return the ids without a successful record and, with `save_errors`, those without errors."""
    table = read_table(path, len(manifest.classes))
    done = set(table.filter(table["error"].is_null())["sample_id"].to_pylist())
    if save_errors:
        done = {name for name in done if has_part_file(path / "errors", name)}
    return [sample_id for sample_id in sample_ids if sample_id not in done]


def read_manifest(path: Path) -> Manifest:
    """Read a run's manifest; warn if an erratum says that its results are wrong.

    Raises UserError if there is no manifest, or it is damaged or of a newer format.
    """
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise UserError(f"{path} is not a run: it has no {MANIFEST}.")
    with refusing("", UserError, after=f" {REPAIR}"):
        content = read_json(path, MANIFEST)
    check_format(content, MANIFEST_FORMAT, file)
    with refusing(f"{file} ", ValueError, after=f". {REPAIR}"):
        content = migrate(content) if isinstance(content, dict) else content
        manifest: Manifest = validated(content, Manifest, "a run's manifest")
    for touch in touched(manifest):
        if touch.unranks:
            warn_user(f"{path.name} is wrong: {touch.sentence} Make the run again.")
    return manifest


def read_records(path: Path, n_classes: int | None = None) -> dict[str, Any]:
    """Return the latest record of each sample by id, skipping invalid lines with a warning."""
    # Without a number of classes, only sample ids are validated.
    good = has_id if n_classes is None else lambda value: is_record(value, n_classes)
    return {record["sample_id"]: record for _, _, record in read_lines(path / JOURNAL, good)}


def requested_records(path: Path, manifest: Manifest) -> list[Any]:
    """Return the records of the manifest's samples in its order, without undecided samples."""
    records = read_records(path, len(manifest.classes))
    return [records[sample_id] for sample_id in manifest.samples if sample_id in records]


def find_run(run: str, results: str, exact: bool = False) -> Path:
    """Return the folder of a run; raise UserError if there is no such run, or several.

    `run` is a path or an id. Unless `exact`, for settings stored in a manifest, it may also be a
    part of the id with at least four characters, or `latest`: the run with the newest manifest.
    Runs below `results` come first, those in a folder `published` last. If none matches, and
    nothing is left of one that did, a run that came with the package may; a warning says so if
    `exact`.
    """
    for path in (Path(run), Path(results, run)):
        if os.path.lexists(path / MANIFEST):
            return path
    stored = list_runs(Path(results))
    if run == LATEST and stored and not exact:
        return max(stored, key=lambda path: (path / MANIFEST).lstat().st_mtime_ns)
    matches = _matches(run, stored, exact)
    if not matches:
        _refuse_remains(run, Path(results))
        matches = _matches(run, list_runs(shipped_folder()), exact)
        if exact and matches:
            warn_user(published_note(matches[0], results))
    if len(matches) == 1:
        return matches[0]
    listing = "bench runs"
    if results != "results":
        listing += f" --results {shlex.quote(results)}"
    if {path.name for path in matches} == {run}:
        raise UserError(f"{quoted(run)} is in {some_of(map(str, matches))}. Name one of them.")
    if matches:
        shown = some_of((path.name for path in matches), 5)
        raise UserError(f"{quoted(run)} is part of the names of {len(matches)} runs: {shown}.")
    raise UserError(
        f"There is no run {quoted(run)}, neither as a folder nor in {quoted(results)}."
        f"{did_you_mean(run, [path.name for path in stored])} `{listing}` shows all."
    )


def _matches(run: str, paths: Sequence[Path], exact: bool) -> Sequence[Path]:
    """Return the runs with this id or, unless `exact`, this part of it; published ones if alone."""
    matches = [path for path in paths if path.name == run]
    if not (matches or exact) and len(run) >= MIN_PART_OF_ID:
        matches = [path for path in paths if run in path.name]
    return [path for path in matches if not is_published(path)] or matches


def _refuse_remains(run: str, results: Path) -> None:
    """Raise UserError if a run of this id is in shards, or has records and no manifest."""
    if any(path.name == run for path in folders_with(results, SHARDS)):
        raise UserError(
            f"{quoted(run)} is in shards. `bench results merge` makes one run of them. To name a"
            " single shard, use its folder."
        )
    for path in folders_with(results, JOURNAL):
        if path.name == run:
            read_manifest(path)  # raises, because there is none


def list_runs(results: Path) -> list[Path]:
    """Return the folders of all runs below `results`, sorted."""
    if "\0" in str(results):
        raise UserError(f"There is no folder {quoted(str(results))}.")
    return sorted(folders_with(results, MANIFEST))


def folders_with(results: Path, name: str) -> Iterator[Path]:
    """Yield the folders below `results` that contain an entry `name`, without following links.

    Subfolders of runs are not searched, because `errors/` may have 200,000 files.
    """
    for folder, below, files in os.walk(results):
        if name in files or name in below:  # readers check whether it is a regular file
            yield Path(folder)
        if MANIFEST in files or MANIFEST in below or (SHARDS in below and holds_shards(folder)):
            below.clear()  # a run, whose subfolders `os.walk` then skips
        below[:] = [child for child in below if not child.startswith(ADDING_PREFIX)]


def shard_folder(run: Path, index: int, count: int) -> Path:
    """Return the folder of a shard of the run in the folder `run`."""
    return run / SHARDS / f"{index}-of-{count}"


def is_begun(run: Path) -> bool:
    """Return whether a run or its shards were begun in a folder."""
    return os.path.lexists(run / MANIFEST) or holds_shards(run)


def holds_shards(run: Path | str) -> bool:
    """Return whether a run's folder has folders of shards."""
    return next(shards_of(Path(run)), None) is not None


def shards_of(run: Path) -> Iterator[Path]:
    """Yield the folders of a run's shards, sorted by number of shards and index."""
    try:
        names = [path.name for path in (run / SHARDS).iterdir()]
    except (OSError, ValueError):  # ValueError if the path has a NUL
        return
    matches = [m for name in names if (m := re.fullmatch(r"([0-9]+)-of-([0-9]+)", name))]
    for match in sorted(matches, key=lambda match: (int(match[2]), int(match[1]))):
        yield run / SHARDS / match[0]


def joined_manifest(earlier: Manifest, now: Manifest) -> Manifest:
    """Return `now` with the samples of both manifests of a run, and the labels that it lacks."""
    labels = earlier.config.labelled_as(now.config)
    now = now.model_copy(update={"config": now.config.labelled_as(labels)})
    if earlier.part is None or now.part is None:
        samples = list(dict.fromkeys([*earlier.samples, *now.samples]))
        return now.model_copy(update={"samples": samples})
    places: dict[str, int] = {}  # sample id → index in the split
    for manifest in (earlier, now):
        assert manifest.part is not None
        places.update(zip(manifest.samples, manifest.part.places, strict=True))
    total = max(earlier.part.asked, now.part.asked)
    part = now.part.model_copy(update={"asked": total, "places": list(places.values())})
    return now.model_copy(update={"samples": list(places), "part": part})


def whole_manifest(manifest: Manifest, **changes: Any) -> Manifest:
    """Return the manifest of the whole run that a shard or an incomplete merge belongs to.

    `changes` replace fields. Unless replaced, `part` and `asked` are removed.
    """
    content = {**manifest.plain(), **changes}
    for name in ("part", "asked"):
        if name not in changes:
            content.pop(name, None)
    content["config"] = {**content["config"], "shard": None}
    return Manifest.model_validate(content)
