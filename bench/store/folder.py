"""A run's folder: opened for writing by one process, read by anybody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from bench.contracts.decision import Decided
from bench.contracts.strategy import Ints
from bench.errors import StoreError, UserError
from bench.machine.cache import write_atomically
from bench.store.cells import has_cells, write_cells
from bench.store.decisions import read_table
from bench.store.first_order import write_first_order
from bench.store.identity import digest
from bench.store.journal import Journal, has_id, read_journal
from bench.store.records import Record, is_record

MANIFEST_FORMAT = 1


class RunFolder:
    """One run on disk, held by this process until the `with` block ends.

    Args:
        path: the run's folder; made if need be.
        manifest: what the run is. Where the folder has one of the same identity, the run goes on.
        fresh: start over instead.

    Raises:
        UserError: the folder cannot be written, is in use, or holds something else.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], fresh: bool = False) -> None:
        self.path = path
        self.manifest = json.loads(json.dumps(manifest))  # as it will be read back
        self._lock = FileLock(path / ".lock")
        self._fresh = fresh

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            if self._fresh:
                self._empty()
            self._adopt_manifest()
            self._journal = Journal(self.path / "samples.jsonl")
        except Timeout:
            raise UserError(
                f"Another process is writing {self.path}. Wait for it, or give this run another"
                " --results folder."
            ) from None
        except OSError as error:
            self._lock.release()
            raise UserError(f"The results folder {self.path} cannot be written: {error}.") from None
        except UserError:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._journal.close()
        self._lock.release()

    def _empty(self) -> None:
        for name in ("summary.json", "samples.jsonl", "manifest.json"):
            (self.path / name).unlink(missing_ok=True)
        for name in ("errors", "first_order"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _adopt_manifest(self) -> None:
        """Go on with the run that is there; its samples and those asked for now are all asked."""
        if (self.path / "manifest.json").is_file():
            earlier = read_manifest(self.path)
            if earlier["identity"] != self.manifest["identity"]:
                raise UserError(
                    f"{self.path} holds another run. Move it away, or use --fresh to replace it."
                )
            asked = dict.fromkeys([*earlier["samples"], *self.manifest["samples"]])
            self.manifest["samples"] = list(asked)
            self.manifest["created"] = earlier["created"]
        write_atomically(self.path / "manifest.json", to_json(self.manifest))

    def outstanding(self, save_errors: bool) -> list[str]:
        """Return the samples asked for that lack a good line, or a part of the errors if wanted."""
        return _outstanding(self.path, self.manifest, save_errors)

    def append(self, record: Record, decided: Decided | None, timesteps: Ints) -> None:
        """Make one image's result durable; its errors, if wanted, are on disk before its line.

        Raises:
            StoreError: the disk is full or gone; what was appended before is kept.
        """
        with self._writing():
            if decided is not None and record["error"] is None:
                name = record["sample_id"]
                if decided.linearised:  # first: errors say that the image is complete
                    folder = self.path / "first_order"
                    write_first_order(folder, name, decided.linearised, timesteps)
                write_cells(self.path / "errors", name, decided.cells, timesteps)
            self._journal.append(record)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary, last and atomically.

        Raises:
            StoreError: the disk is full or gone; the decisions are kept.
        """
        with self._writing():
            write_atomically(self.path / "summary.json", to_json(summary))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written any more: {error.strerror or error}. What was"
                " decided before is kept there; make room, and the same command goes on with it."
            ) from error


def completed(path: Path, manifest: Mapping[str, Any], save_errors: bool) -> dict[str, Any] | None:
    """Return the summary of the run in `path` if nothing `manifest` asks for is outstanding."""
    summary = read_summary(path)
    if summary is None:
        return None
    stored = read_manifest(path)
    missing = (
        digest(stored["identity"]) != digest(manifest["identity"])
        or not set(manifest["samples"]) <= set(stored["samples"])
        or summary["dataset"]["n_samples"] != len(stored["samples"])
        or _outstanding(path, stored, save_errors)
    )
    return None if missing else summary


def _outstanding(path: Path, manifest: Mapping[str, Any], save_errors: bool) -> list[str]:
    table = read_table(path / "samples.jsonl", len(manifest["classes"]))
    done = set(table.filter(table["error"].is_null())["sample_id"].to_pylist())
    if save_errors:
        done = {i for i in done if has_cells(path / "errors", i)}
    return [sample_id for sample_id in manifest["samples"] if sample_id not in done]


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run's manifest.

    Raises:
        UserError: there is none, it is damaged, or a newer version of the toolkit wrote it.
    """
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not a run: it has no manifest.json.") from None
    except (ValueError, OSError) as error:
        raise UserError(
            f"{file} cannot be read: {error}.\nIts samples.jsonl is not touched. Delete the"
            " manifest, and the `bench run` that made it writes it anew and keeps what was decided."
        ) from None
    if not isinstance(manifest, dict) or "identity" not in manifest:
        raise UserError(f"{file} is not a run's manifest.")
    if manifest.get("format", 0) > MANIFEST_FORMAT:
        raise UserError(
            f"{file} was written by a newer version of the toolkit (format {manifest['format']},"
            f" this one knows {MANIFEST_FORMAT}). Update with: pip install -U"
            " diffusion-classifier-bench"
        )
    return manifest


def read_records(path: Path, n_classes: int | None = None) -> dict[str, Any]:
    """Return the latest record of each sample, by id, in the order first written.

    Args:
        path: the run's folder.
        n_classes: leave out, with a warning, what is no record of a run with so many classes.
    """
    good = has_id if n_classes is None else lambda value: is_record(value, n_classes)
    return {record["sample_id"]: record for record in read_journal(path / "samples.jsonl", good)}


def asked_records(path: Path, manifest: Mapping[str, Any]) -> list[Any]:
    """Return the records of the samples asked for, in the order of the manifest."""
    records = read_records(path, len(manifest["classes"]))
    return [records[sample_id] for sample_id in manifest["samples"] if sample_id in records]


def draw_plan(manifest: Mapping[str, Any]) -> str | None:
    """Return the draw plan a run was scored on; None: a classifier, or an older manifest."""
    plan: str | None = manifest["identity"].get("scoring", {}).get("draw_plan")
    return plan


def read_summary(path: Path) -> dict[str, Any] | None:
    """Return the summary of a complete run, or None."""
    try:
        summary = json.loads((path / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def find_run(run: str, results: str) -> Path:
    """Return the folder of a run named by id or by path.

    Raises:
        UserError: there is no such run.
    """
    candidates: Iterable[Path] = (Path(run), Path(results, run), Path(results, "published", run))
    for path in candidates:
        if (path / "manifest.json").is_file():
            return path
    raise UserError(
        f"There is no run {run!r}, neither as a folder nor in {results}."
        " `bench leaderboard` lists the runs there are."
    )


def list_runs(results: Path) -> list[Path]:
    """Return the folders of all runs below `results`, its `published/` included."""
    return sorted(path.parent for path in results.glob("**/manifest.json"))


def to_json(value: Any) -> str:
    """Return indented JSON with a line's end."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
