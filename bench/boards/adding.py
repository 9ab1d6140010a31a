"""Adding to `results/published/`: a run is written beside it, checked, and only then moved in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.boards.published import PUBLISHED_FILES, Totals, problems
from bench.boards.rows import REPORTED_FILE, ReportedResult, read_reported
from bench.contracts.parameters import Parameters
from bench.discovery.loading import exhaustive, load_plugins
from bench.errors import UserError
from bench.inputs.data import FOLDER
from bench.machine.files import read_toml, write_atomically, writing
from bench.stats.metrics import metrics
from bench.store.decisions import as_decisions
from bench.store.documents import Manifest
from bench.store.fields import first_problem, to_json
from bench.store.folder import ADDING, asked_records
from bench.store.records import Record
from bench.store.runs import read_run
from bench.store.summary import AUDIT, read_swept

FLOAT32_DIGITS = 6  # significant digits of a float32
PUBLISHED_TOP = 5  # classes kept per record, as many as top5_accuracy needs


def publish_run(
    run: Path,
    published: Path,
    subset: bool = False,
    private: bool = False,
    replace: bool = False,
) -> Path:
    """Copy a complete run into `published/<run_id>/`, small and free of this machine's paths.

    Per sample the five best classes are kept, and six significant digits. No image is copied.
    `subset` accepts a part of the split and `private` data that is not a registered dataset, which
    boards mark; `replace` replaces a published run of the same id with other content.

    UserError: the run is not complete, not on the whole split of a registered dataset, does not
    pass `problems`, or is published already. Nothing is changed then.
    """
    stored = read_run(run)
    manifest, summary, totals = stored.manifest, stored.finished(), Totals(published)
    data = summary.dataset
    if data.n_samples < data.n_total and not subset:
        raise UserError(
            f"{summary.run_id} has {data.n_samples:,} of the split's {data.n_total:,} images. Run"
            " the whole split, or add it with --subset: it is marked as a subset, without a rank."
        )
    if reason := _not_public(manifest, totals):
        if not private:
            raise UserError(
                f"{reason} Others cannot repeat it; --private adds it, marked as private data."
            )
        manifest = manifest.model_copy(update={"private_data": True})
    records = [_compact(record) for record in asked_records(run, manifest)]
    if len(records) != summary.dataset.n_samples:
        raise UserError(
            f"{run}: the summary is of {summary.dataset.n_samples} images, {len(records)} are"
            " decided. The same `bench run` brings it up to date."
        )
    # What the records say today: a summary written by an older version may lack a metric.
    today = metrics(as_decisions(records), manifest.classes, manifest.items)
    summary = summary.model_copy(update={"metrics": today})
    texts = (
        to_json(without_paths(manifest.plain())),
        _lines(records),
        to_json(without_paths(summary.plain())),
    )
    contents = dict(zip(PUBLISHED_FILES, texts, strict=True))
    if swept := read_swept(run):
        contents[AUDIT] = _lines(swept.values())
    target = Path(published, manifest.run_id)
    with writing(published):
        published.mkdir(parents=True, exist_ok=True)
        if _holds(target, contents):
            return target
        if os.path.lexists(target) and not replace:
            raise UserError(f"{target} already exists, with other content. --replace changes it.")
        with TemporaryDirectory(prefix=ADDING, dir=published, ignore_cleanup_errors=True) as beside:
            new = Path(beside, target.name)
            new.mkdir()
            for name, content in contents.items():
                write_atomically(new / name, content)
            if errors := list(problems(new, totals)):
                raise UserError(f"{run} cannot be published as it is: {'; '.join(errors)}.")
            if target.is_symlink() or (target.exists() and not target.is_dir()):
                raise UserError(f"{target} is a link or a file, not a folder. Move it away first.")
            old = Path(f"{beside}-old")  # beside it: what fails from here on deletes no result
            if target.exists():
                target.rename(old)
            new.rename(target)
            shutil.rmtree(old, ignore_errors=True)
    return target


def add_reported(file: Path, published: Path) -> list[ReportedResult]:
    """Add the results of a file to `published/reported.json`; UserError: one is invalid."""
    new, target = read_reported(file.resolve()), published / REPORTED_FILE
    added = read_reported(target) if os.path.lexists(target) else []
    for place, result in enumerate(new):
        if result in added or result in new[:place]:
            raise UserError(
                f"{target} has this result already: {result.dataset}/{result.split},"
                f" {result.backbone}, {result.strategy}."
            )
    rows = [result.model_dump(exclude_unset=True) for result in (*added, *new)]
    with writing(published):
        published.mkdir(parents=True, exist_ok=True)
        write_atomically(target, to_json(rows))
    return new


def _not_public(manifest: Manifest, totals: Totals) -> str | None:
    """Return why others cannot get the run's data; None where they can."""
    data, registered = manifest.dataset, load_plugins().datasets
    if manifest.identity.dataset.name == FOLDER:
        return f"{manifest.run_id} is on a folder of images, {data.name!r}."
    if manifest.identity.dataset.name not in registered:
        return f"{manifest.run_id} is on {data.name!r}, which is not a registered dataset."
    if problem := totals.problem(manifest):
        return f"{manifest.run_id}: {problem}."
    return None


def _holds(target: Path, contents: Mapping[str, str]) -> bool:
    try:
        return {path.name: path.read_text("utf-8") for path in target.iterdir()} == contents
    except (OSError, ValueError):
        return False


def _lines(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _compact(record: Record) -> Any:
    top = [[index, _rounded(score), draws] for index, score, draws in record["top"][:PUBLISHED_TOP]]
    return {**{key: _rounded(value) for key, value in record.items()}, "top": top}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{FLOAT32_DIGITS}g}") if isinstance(value, float) else value


def without_paths(value: Any) -> Any:
    """Return the value with absolute paths cut to their last part, and no results_dir."""
    if isinstance(value, Mapping):
        return {k: without_paths(v) for k, v in value.items() if k != "results_dir"}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    strategy: str | None = None
    params: Parameters = Field(default_factory=dict)
    audit: int | None = Field(None, ge=1)  # images to sweep afterwards; None: no audit


class PublishedBoard(BaseModel):
    """What is published of one backbone on one dataset."""

    model_config = ConfigDict(extra="forbid")

    dataset: str
    backbone: str
    draws: int | None = Field(None, ge=1)  # None: nothing is recorded, so nothing can be replayed
    record: str | None = None  # strategy that is recorded; None: the exhaustive one
    live: list[_Choice] = []
    replay: list[_Choice] = []


def read_table(file: Path) -> list[PublishedBoard]:
    """Read the boards of a TOML file; UserError: there is none, or an entry does not fit."""
    try:
        entries = read_toml(file).get("board", [])
        return [PublishedBoard.model_validate(entry) for entry in entries]
    except (OSError, ValueError) as error:  # pydantic's is a ValueError
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{file} is not a table of boards: {problem}") from None


def publish(
    board: PublishedBoard,
    work: Path,
    published: Path,
    limit: int | None = None,
    data_dir: str | None = None,
) -> Iterator[Path]:
    """Make the runs of a board and yield their published folders; the same call resumes.

    The runs with their recorded errors are made in the folder `work`, of `limit` images to try it;
    the small copies in `published`. UserError: invalid input, before anything is scored.
    """
    from bench.recordings.replay import prepare_replay
    from bench.running.execute import execute
    from bench.running.run import run
    from bench.running.settings import make_config
    from bench.running.verbs.agreement import audit_stored

    add = partial(publish_run, published=published, subset=limit is not None, replace=True)

    def audited(folder: Path, count: int | None) -> Path:
        if count is not None:
            audit_stored(folder, count, {"data_dir": data_dir})
        return folder

    def folder_of(strategy: str | None, params: Parameters, save_errors: bool) -> Path:
        settings: dict[str, Any] = {"limit": limit, "data_dir": data_dir, "results": str(work)}
        settings |= {"dataset": board.dataset, "backbone": board.backbone}
        settings |= {"strategy": strategy, "params": dict(params)}
        settings |= {"save_errors": True} if save_errors else {}
        return run(make_config(settings)).folder

    recorded = None
    if board.draws is not None:
        recorded = folder_of(board.record or exhaustive(), {"draws": board.draws}, True)
        yield add(recorded)
    for choice in board.live:
        yield add(audited(folder_of(choice.strategy, choice.params, False), choice.audit))
    for choice in board.replay:
        if choice.strategy is None or recorded is None:
            raise UserError(f"A replay on {board.dataset} needs a strategy and draws.")
        replay = prepare_replay(recorded, choice.strategy, choice.params, work, limit)
        yield add(audited(execute(replay).folder, choice.audit))
