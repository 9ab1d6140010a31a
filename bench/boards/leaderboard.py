"""The leaderboard: stored runs, and results that others reported, ranked within their kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.boards.reported import REPORTED, read_reported
from bench.boards.shipped import not_among
from bench.contracts.training import training_group
from bench.errors import BenchWarning, UserError
from bench.stats.comparison import ALPHA, mcnemar, paired_wins
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Manifest, Summary
from bench.store.files import regular_file
from bench.store.folder import list_runs, places, read_manifest, read_summary
from bench.store.journal import JOURNAL

Row = dict[str, Any]

METRICS = (
    "accuracy",
    "accuracy_ci95",
    "balanced_accuracy",
    "precision_weighted",
    "recall_weighted",
    "f1_weighted",
    "top5_accuracy",
)

EQUIVALENTS = "evaluation_equivalents_per_image"


def leaderboard(
    folders: Path | Sequence[Path], dataset: str | None = None, shipped: Sequence[Row] = ()
) -> list[Row]:
    """Return the rows of every dataset's board, best accuracy first.

    Rows of one board share dataset, version, split and data (its fingerprint). A rank is counted
    only among rows of a kind: measured on the whole split, and either zero-shot or trained on the
    same thing. Subsets, replays and reported results are shown without a rank.

    A rank is one more than the number of runs of its kind that are significantly better, by
    McNemar's exact test on the same images (p < 0.05): runs that do not differ significantly share
    a rank. Where the 95 % intervals do not even overlap, no test is needed.

    Args:
        folders: a folder of runs, or several; runs and `reported.json` files at any depth below
            are included. A run that lies in several of them counts once.
        dataset: only this one.
        shipped: rows of runs that are not here. They keep their rank where no run that is here
            has one, and have none beside runs that are.

    Raises:
        UserError: no folder exists and no row is shipped.
    """
    folders = [folders] if isinstance(folders, Path) else folders
    there = [folder for folder in folders if folder.is_dir()]
    if not there and not shipped:
        raise UserError(
            f"There is no folder {folders[0]}. `bench run digits` makes the first run in ./results."
        )
    rows = [*_stored(there, dataset), *_reported(there, dataset)]
    return arrange(rows, shipped)


def arrange(
    rows: Iterable[Row],
    shipped: Sequence[Row] = (),
    decided: Callable[[str], Decisions] | None = None,
) -> list[Row]:
    """Return the rows board by board, best accuracy first, with their ranks; see `leaderboard`.

    Args:
        rows: runs and reported results.
        shipped: rows of runs that are not here.
        decided: gives the decisions of the run in a folder; None: they are read there.
    """
    rows = list(rows)
    _place_reported(rows)
    rows += not_among(shipped, rows)
    rows.sort(key=lambda r: (*_board(r), -r["accuracy"], r[EQUIVALENTS] or 0))
    for _, board in groupby(rows, key=_board):
        rank(list(board), decided or _read)
    return rows


def _read(path: str) -> Decisions:
    return read_decisions(Path(path), read_manifest(Path(path)))


def _board(row: Row) -> tuple[str, int, str, str]:
    return row["dataset"], row["version"] or 0, row["split"], row["fingerprint"] or ""


def _stored(folders: Sequence[Path], dataset: str | None) -> Iterator[Row]:
    seen = set()
    for path in (path for folder in folders for path in list_runs(folder)):
        try:
            summary = read_summary(path)
            if summary is None or dataset not in (None, summary.dataset.name):
                continue
            regular_file(path, JOURNAL)  # what ranking reads
            row = run_row(path, read_manifest(path), summary)
        except UserError as error:
            warnings.warn(f"Left out: {error}", BenchWarning, stacklevel=2)
            continue
        key = (row["run_id"], row["n_samples"])
        if key not in seen:
            seen.add(key)
            yield row


def run_row(path: Path, manifest: Manifest, summary: Summary) -> Row:
    """Return the row of a run, without its rank."""
    data, values = summary.dataset, summary.metrics
    kind = "replayed" if summary.replayed_from else "measured"
    return {
        "rank": None,
        "kind": kind if data.n_samples == data.n_total else "subset",
        "dataset": data.name,
        "version": data.version,
        "split": data.split,
        "fingerprint": manifest.identity.dataset.fingerprint,
        "backbone": summary.backbone.name,
        "trained_on": summary.backbone.trained_on,
        "weights": manifest.identity.backbone.weights,
        "strategy": summary.strategy.name,
        "params": summary.strategy.params,
        "draw_plan": manifest.identity.scoring.draw_plan,
        "accuracy": values.accuracy,
        "accuracy_ci95": list(values.accuracy_ci95),
        "balanced_accuracy": values.balanced_accuracy,
        "precision_weighted": values.precision_weighted,
        "recall_weighted": values.recall_weighted,
        "f1_weighted": values.f1_weighted,
        "top5_accuracy": values.top5_accuracy,
        "n_samples": data.n_samples,
        "n_total": data.n_total,
        "failed_samples": summary.failed_samples,
        "evaluations_per_image": summary.cost.evaluations_per_image,
        "evaluation_equivalents_per_image": summary.cost.equivalents_per_image,
        "cost_timed": summary.cost.timed,
        "seconds": summary.cost.seconds,
        "replayed_from": summary.replayed_from,
        "run_id": manifest.run_id,
        "source": f"run {manifest.run_id}",
        "path": str(path),
    }


def _reported(folders: Sequence[Path], dataset: str | None) -> Iterator[Row]:
    for file in sorted({file.resolve() for folder in folders for file in reported_files(folder)}):
        try:
            yield from (row for row in reported_rows(file) if dataset in (None, row["dataset"]))
        except UserError as error:
            warnings.warn(f"Left out: {error}", BenchWarning, stacklevel=2)


def reported_files(folder: Path) -> list[Path]:
    """Return the files of reported results at any depth below a folder."""
    return sorted(place / REPORTED for place in places(folder, REPORTED))


def reported_rows(file: Path) -> list[Row]:
    """Return the rows of a file of reported results.

    Raises:
        UserError: the file is damaged.
    """
    empty = dict.fromkeys(
        (
            "weights",
            "draw_plan",
            "failed_samples",
            "cost_timed",
            "seconds",
            "replayed_from",
            "run_id",
            "path",
        )
    )
    return [
        {
            "rank": None,
            "kind": "reported",
            "fingerprint": None,
            **dict.fromkeys(METRICS),
            **result.model_dump(),
            **empty,
            EQUIVALENTS: result.evaluations_per_image,
            "params": {},
        }
        for result in read_reported(file)
    ]


def _place_reported(rows: Iterable[Row]) -> None:
    """Reported results name no version and no data: they are placed on the newest board."""
    rows = list(rows)
    for row in (row for row in rows if row["kind"] == "reported"):
        boards = [
            _board(r)
            for r in rows
            if (r["dataset"], r["split"]) == (row["dataset"], row["split"])
            and r["kind"] != "reported"
        ]
        if boards:
            _, row["version"], _, row["fingerprint"] = max(boards)


def training(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what rows have in common whose backbones were trained on the same data."""
    return training_group(row["trained_on"], row["weights"] or row["backbone"])


def rank(board: Sequence[Row], decided: Callable[[str], Decisions] = _read) -> None:
    """Set the rank of a board's rows, as `leaderboard` explains it.

    Args:
        board: rows with kind, trained_on, weights, backbone, accuracy, accuracy_ci95 and path (the
            run's folder; None: it is not here).
        decided: gives the decisions of the run in a folder. Each is read once, and only where
            intervals overlap.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in board:
        if row["kind"] == "measured" and row["path"] is not None:
            groups.setdefault(training(row), []).append(row)
    if groups:
        for row in board:
            row["rank"] = None
    for group in groups.values():
        better = _significantly_better(group, decided)
        for row, ahead in zip(group, better.sum(axis=0).tolist(), strict=True):
            row["rank"] = 1 + ahead


def _significantly_better(
    rows: Sequence[Row], decided: Callable[[str], Decisions]
) -> NDArray[np.bool_]:
    """Return bool [R, R]: whether row i is significantly better than row j."""
    accuracy = np.array([row["accuracy"] for row in rows])
    low, high = np.array([row["accuracy_ci95"] for row in rows]).T
    higher, apart = accuracy[:, None] > accuracy, low[:, None] > high
    overlap = np.flatnonzero((higher & ~apart).any(axis=0) | (higher & ~apart).any(axis=1))
    tested = np.zeros_like(higher)
    if len(overlap):
        wins = paired_wins(decided(rows[place]["path"]) for place in overlap.tolist())
        tested[np.ix_(overlap, overlap)] = mcnemar(wins, wins.T) < ALPHA
    return np.asarray(higher & (apart | tested))
