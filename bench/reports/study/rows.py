"""Rows of a study's report: one per declared run, with the results of the stored run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, warn_user
from bench.reports.rows import RunRow
from bench.reports.run_view import RunView
from bench.store.runs import StoredRun, read_run
from bench.store.studies import CellStatus, Published, StudyCell


class StudyRow(RunRow):
    """One run of a study; values that are not known yet are None."""

    axes: dict[str, str]  # axis → value
    status: CellStatus  # waiting, pilot, complete, failed_samples or failed
    error: str | None = None  # reason of the failure
    published: Published | None = None  # published figure, if there is one


@dataclass(frozen=True)
class StudyRun:
    """A row and its stored run, or None if there is none yet."""

    row: StudyRow
    run: StoredRun | None = None


def study_run(cell: StudyCell, results: Path) -> StudyRun:
    """Return the row of a declared run, with the run itself if the folder `results` has it."""
    declared = {name: getattr(cell, name) for name in ("axes", "status", "error", "published")}
    bare = StudyRow(**declared, run_id=cell.run_id, n_asked=cell.images)
    if cell.run_id is None:
        return StudyRun(bare)
    for path in (results / cell.run_id, results / "published" / cell.run_id):
        with suppress(UserError):
            run = read_run(path)
            if name := cell.differing_setting(run.manifest):
                warn_user(f"Left out: {path} is not the run of its cell: its {name} differs.")
                continue
            limit = cell.config.limit
            if run.summary is not None and limit is not None:
                run = _limit_run(run, limit)  # it may have more images than the study declares
            if (view := RunView(run)).so_far is None:
                run.require_decisions()  # raises
            if (figure := cell.published) is not None:
                ours = view.summary.metrics.metric(figure.metric)
                declared["published"] = figure.compared(view.n, ours)
            return StudyRun(StudyRow.of(view, **declared, n_asked=cell.images), run)
    return StudyRun(bare.model_copy(update={"status": "waiting"}))


def _limit_run(run: StoredRun, limit: int) -> StoredRun:
    """Return a run restricted to `limit` images; its summary is dropped if any are left out."""
    from bench.inputs.subsets import select_subset

    manifest = run.manifest
    if len(manifest.samples) <= limit:
        return run
    decided = run.decided()
    chosen = select_subset(decided.sample_ids.to_pylist(), decided.labels.tolist(), limit)
    part = manifest.model_copy(update={"samples": chosen})
    return StoredRun(run.path, part, None)
