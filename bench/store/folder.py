"""A run's folder as readers see it, and the folders of its shards.

results/<run_id>/shards/3-of-16/      a folder as any run's, with the samples of the shard
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.discovery.loading import load_plugins
from bench.errors import UserError, did_you_mean, quoted, warn_user
from bench.store.cells import has_part_file
from bench.store.documents import MANIFEST_FORMAT, Manifest, migrate
from bench.store.fields import read_document
from bench.store.identity import BackboneIdentity, digest
from bench.store.journal import JOURNAL, has_id, read_lines, read_table
from bench.store.records import is_record
from bench.store.summary import Summary

MANIFEST, SUMMARY, LOCK, SHARDS = "manifest.json", "summary.json", ".lock", "shards"
LATEST = "latest"  # name of the newest run
SHORTEST_PART = 4  # characters by which a run may be named
ADDING = ".adding-"  # start of the name of a folder whose content is not checked yet


def missing(path: Path, manifest: Manifest, save_errors: bool) -> list[str] | None:
    """Return the samples of `manifest` that the run in `path` has not decided; None: no run."""
    if not os.path.lexists(path / MANIFEST):
        return None
    stored = read_manifest(path)
    if digest(stored.identity) != digest(manifest.identity):
        return None
    return undecided(path, stored, manifest.samples, save_errors)


def undecided(
    path: Path, manifest: Manifest, sample_ids: Sequence[str], save_errors: bool
) -> list[str]:
    """Return the ids that the run in `path` has not decided, or, to `save_errors`, not recorded."""
    table = read_table(path, len(manifest.classes))
    done = set(table.filter(table["error"].is_null())["sample_id"].to_pylist())
    if save_errors:
        done = {name for name in done if has_part_file(path / "errors", name)}
    return [sample_id for sample_id in sample_ids if sample_id not in done]


def read_manifest(path: Path) -> Manifest:
    """Read a run's manifest of any format; UserError: there is none, it is damaged or newer."""
    file = path / MANIFEST
    if not os.path.lexists(file):
        raise UserError(f"{path} is not a run: it has no {MANIFEST}.")
    manifest = read_document(
        Manifest,
        path,
        MANIFEST,
        what="a run's manifest",
        newest=MANIFEST_FORMAT,
        advice=f"Its {JOURNAL} is not touched: delete the manifest, and the `bench run` that made"
        " it writes it again and keeps what was decided.",
        migrate=migrate,
    )
    _warn_of_correction(path, manifest.identity.backbone)
    return manifest


def _warn_of_correction(path: Path, backbone: BackboneIdentity) -> None:
    spec = next((s for s in load_plugins().backbones if s.name == backbone.name), None)
    if spec and spec.correction and backbone.version < spec.version:
        warn_user(
            f"{path.name} was made with version {backbone.version} of backbone {spec.name!r}, now"
            f" {spec.version}. {spec.correction} Make the run again."
        )


def read_records(path: Path, n_classes: int | None = None) -> dict[str, Any]:
    """Return the latest record of each sample, by id; with `n_classes`, only valid records."""
    good = has_id if n_classes is None else lambda value: is_record(value, n_classes)
    return {record["sample_id"]: record for _, _, record in read_lines(path / JOURNAL, good)}


def asked_records(path: Path, manifest: Manifest) -> list[Any]:
    """Return the records of the manifest's samples, in its order."""
    records = read_records(path, len(manifest.classes))
    return [records[sample_id] for sample_id in manifest.samples if sample_id in records]


def read_summary(path: Path) -> Summary | None:
    """Return the summary of a run; None: it has none yet; UserError: it is damaged."""
    if not os.path.lexists(path / SUMMARY):
        return None
    return read_document(Summary, path, SUMMARY, what="a run's summary")


def find_run(run: str, results: str, exact: bool = False) -> Path:
    """Return the folder of a run; UserError: there is no such run, or several.

    `run` is an id or a path; unless `exact`, as settings that are kept must be, also a part of four
    or more characters that one id alone has, or `latest`: the run whose manifest was written last.
    """
    candidates: Iterable[Path] = (Path(run), Path(results, run), Path(results, "published", run))
    for path in candidates:
        if os.path.lexists(path / MANIFEST):
            return path
    stored = list_runs(Path(results))
    if run == LATEST and stored and not exact:
        return max(stored, key=lambda path: (path / MANIFEST).lstat().st_mtime_ns)
    named = [path for path in stored if run in path.name] if len(run) >= SHORTEST_PART else []
    if len(named) == 1 and not exact:
        return named[0]
    if holds_shards(Path(results, run)):
        raise UserError(
            f"{quoted(run)} is in shards. `bench results merge` makes one run of them; a shard by"
            " itself is named by its folder."
        )
    listing = "bench list runs"
    if results != "results":
        listing += f" --results {shlex.quote(results)}"
    if len(named) > 1:
        shown = ", ".join(path.name for path in named[:5]) + (", …" if len(named) > 5 else "")
        raise UserError(f"{quoted(run)} is part of the names of {len(named)} runs: {shown}.")
    raise UserError(
        f"There is no run {quoted(run)}, neither as a folder nor in {quoted(results)}."
        f"{did_you_mean(run, [path.name for path in named or stored])} `{listing}` shows all."
    )


def list_runs(results: Path) -> list[Path]:
    """Return the folders of all runs below `results`; UserError: `results` is not a valid path."""
    if "\0" in str(results):
        raise UserError(f"There is no folder {quoted(str(results))}.")
    return sorted(places(results, MANIFEST))


def places(results: Path, name: str) -> Iterator[Path]:
    """Yield the folders below `results` that hold a file of this name.

    A run's own folders are not entered: `errors/` may hold 200,000 files. Links are not followed.
    """
    for folder, below, files in os.walk(results):
        if name in files or name in below:  # the reader checks what it is
            yield Path(folder)
        run = MANIFEST in files or MANIFEST in below or (SHARDS in below and holds_shards(folder))
        below[:] = [n for n in below if not run and not n.startswith(ADDING)]


def shard_folder(run: Path, index: int, count: int) -> Path:
    """Return the folder of a shard of the run in the folder `run`."""
    return run / SHARDS / f"{index}-of-{count}"


def holds_shards(run: Path | str) -> bool:
    """Tell whether a folder is that of a run with shards."""
    return next(shards_of(Path(run)), None) is not None


def shards_of(run: Path) -> Iterator[Path]:
    """Yield the folders of a run's shards, in the order of their numbers."""
    try:
        names = [path.name for path in (run / SHARDS).iterdir()]
    except (OSError, ValueError):  # a name may hold a NUL
        return
    matches = [m for name in names if (m := re.fullmatch(r"([0-9]+)-of-([0-9]+)", name))]
    for match in sorted(matches, key=lambda match: (int(match[2]), int(match[1]))):
        yield run / SHARDS / match[0]


def joined(earlier: Manifest, now: Manifest) -> Manifest:
    """Return the manifest `now` with the samples of both manifests of one folder.

    A note and tags are the earlier ones, unless `now` has others.
    """
    labels = earlier.config.labelled_as(now.config)
    now = now.model_copy(update={"config": now.config.labelled_as(labels)})
    if earlier.part is None or now.part is None:
        samples = list(dict.fromkeys([*earlier.samples, *now.samples]))
        return now.model_copy(update={"samples": samples})
    places: dict[str, int] = {}
    for manifest in (earlier, now):
        assert manifest.part is not None
        places.update(zip(manifest.samples, manifest.part.places, strict=True))
    total = max(earlier.part.asked, now.part.asked)
    part = now.part.model_copy(update={"asked": total, "places": list(places.values())})
    return now.model_copy(update={"samples": list(places), "part": part})


def whole(manifest: Manifest, **changes: Any) -> Manifest:
    """Return the manifest of a whole run, from that of a shard or a merged run."""
    content = {**manifest.plain(), **changes}
    for name in ("part", "asked"):
        if name not in changes:
            content.pop(name, None)
    content["config"] = {**content["config"], "shard": None}
    return Manifest.model_validate(content)
