"""Rows of a study's report: one per declared run, with the results of the stored run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, warn_user
from bench.stats.metrics import summary_so_far
from bench.store.fields import Count, FullDocument, Interval, MetricFields, Share
from bench.store.runs import StoredRun, read_run
from bench.store.studies import CellStatus, Published, StudyCell
from bench.store.summary import Group, Summary


class StudyRow(MetricFields, FullDocument):
    """One run of a study; values that are not known yet are None."""

    axes: dict[str, str]  # axis → value
    status: CellStatus  # waiting, pilot, complete, failed_samples or failed
    error: str | None = None  # reason of the failure
    run_id: str | None = None  # id of the run
    path: str | None = None  # folder of the run
    images: Count | None = None  # number of images of the run
    n: Count | None = None  # number of decided images, on which the metrics are computed
    dataset: str | None = None  # name of the dataset or of its folder
    split: str | None = None  # split of the dataset
    fingerprint: str | None = None  # hash of the data
    backbone: str | None = None  # registered name
    trained_on: str | None = None  # `dataset/split`; None: zero-shot
    strategy: str | None = None  # strategy that decided
    accuracy: Share | None = None  # share of images whose prediction is right
    accuracy_ci95: Interval | None = None  # 95 % interval of the accuracy
    cost: float | None = None  # evaluation equivalents per image; 1 for a classifier
    seconds: float | None = None  # scoring time
    failed_samples: Count | None = None  # number of images that could not be scored
    worst_group: Group | None = None  # group of images with the lowest accuracy, if there are any
    published: Published | None = None  # published figure, if there is one


@dataclass(frozen=True)
class StudyRun:
    """A row and its stored run, or None if there is none yet."""

    row: StudyRow
    run: StoredRun | None = None


def study_run(cell: StudyCell, results: Path) -> StudyRun:
    """Return the row of a declared run, with the run itself if the folder `results` has it."""
    bare = StudyRow(
        axes=cell.axes,
        status=cell.status,
        error=cell.error,
        run_id=cell.run_id,
        images=cell.images,
        published=cell.published,
    )
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
            summary = run.summary if run.complete else None
            if summary is None:
                summary = summary_so_far(run.manifest, run.summary, run.require_decisions())
            return StudyRun(_fill_row(bare, run, summary), run)
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


def _fill_row(row: StudyRow, run: StoredRun, summary: Summary) -> StudyRow:
    data, metrics, n = run.manifest.dataset, summary.metrics, summary.dataset.n_samples
    figure = row.published
    return row.model_copy(
        update={
            "path": str(run.path),
            "n": n,
            "dataset": data.name,
            "split": data.split,
            "fingerprint": run.manifest.identity.dataset.fingerprint,
            "backbone": summary.backbone.name,
            "trained_on": summary.backbone.trained_on,
            "strategy": summary.strategy.name,
            **metrics.summary_metrics(),
            "accuracy_ci95": metrics.accuracy_ci95,
            "cost": summary.cost.per_image(run.manifest.classifier),
            "seconds": summary.cost.seconds,
            "failed_samples": summary.failed_samples,
            "worst_group": metrics.worst_group,
            "published": figure and figure.compared(n, metrics.metric(figure.metric)),
        }
    )
