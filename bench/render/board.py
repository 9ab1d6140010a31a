"""The report's leaderboards: its runs, and what others reported on the same data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from bench.boards.formats import assignments
from bench.boards.leaderboard import rank
from bench.boards.reported import REPORTED, read_reported
from bench.render.runs import RunData, marks
from bench.store.folder import places


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        kind: measured, subset, replayed, incomplete or reported.
        evaluations: evaluation equivalents an image; None: not known.
        interval: the 95 % Wilson interval of the accuracy; None: not known.
        marks: (kind of mark, text), what tells the result apart.
        source: a run id, or where a reported result was published.
        anchor: the id of the run's section on the page; "" where it has none.
        key: the letters that stand for it in the figure.
        path: the run's folder; None where it is reported.
        rank: among results that compare; None: ranked with none.
    """

    kind: str
    dataset: str
    version: int | None
    split: str
    backbone: str
    trained_on: str | None
    strategy: str
    params: str
    accuracy: float
    interval: tuple[float, float] | None
    f1: float | None
    evaluations: float | None
    seconds: float | None
    n: int | None
    marks: list[tuple[str, str]]
    source: str
    anchor: str = ""
    key: str = ""
    path: Path | None = None
    rank: int | None = None

    @property
    def partial(self) -> bool:
        """Whether it stands on a part of the split."""
        return any(kind in ("subset", "incomplete") for kind, _ in self.marks)


@dataclass(frozen=True)
class Board:
    """The results on one split of one dataset, best accuracy first."""

    name: str
    rows: list[Row]


def boards(rows: Iterable[Row]) -> list[Board]:
    """Return one board a dataset, version and split, ranked as the leaderboard ranks.

    Reported results name no version: they stand beside the newest. A board without a run
    of its own is left out.
    """
    rows = list(rows)
    own = [row for row in rows if row.kind != "reported"]
    placed = []
    for row in rows:
        if row.kind == "reported":
            versions = [
                r.version or 0 for r in own if (r.dataset, r.split) == (row.dataset, row.split)
            ]
            if not versions:
                continue
            row = replace(row, version=max(versions) or None)
        placed.append(row)
    placed.sort(key=lambda r: (r.dataset, r.split, r.version or 0, -r.accuracy))
    made = []
    for (name, split, version), group in groupby(
        placed, key=lambda r: (r.dataset, r.split, r.version)
    ):
        title = f"{name}/{split}" + (f", version {version}" if version else "")
        made.append(Board(title, _ranked(list(group))))
    return made


def _ranked(rows: Sequence[Row]) -> list[Row]:
    entries: list[dict[str, Any]] = [
        {
            "kind": row.kind,
            "trained_on": row.trained_on,
            "accuracy": row.accuracy,
            "accuracy_ci95": row.interval,
            "path": row.path,
            "rank": None,
        }
        for row in rows
    ]
    rank(entries)
    return [
        replace(row, rank=entry["rank"], key=letters(position))
        for position, (row, entry) in enumerate(zip(rows, entries, strict=True))
    ]


def letters(position: int) -> str:
    """Return A, B, … Z, AA, AB, … for the positions 0, 1, … of a list."""
    text = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, len(ascii_uppercase))
        text = ascii_uppercase[rest] + text
    return text


def row_of(run: RunData, anchor: str) -> Row:
    """Return a run's row."""
    summary = run.summary
    data, metrics = summary.dataset, summary.metrics
    rate = summary.cost.images_per_second
    return Row(
        kind=run.kind,
        dataset=data.name,
        version=data.version,
        split=data.split,
        backbone=summary.backbone.name,
        trained_on=summary.backbone.trained_on,
        strategy=summary.strategy.name,
        params=assignments(summary.strategy.params),
        accuracy=metrics.accuracy,
        interval=metrics.accuracy_ci95,
        f1=metrics.f1_weighted,
        evaluations=run.evaluations,
        seconds=1 / rate if rate else None,
        n=data.n_samples,
        marks=run.marks,
        source=f"run {run.run_id}",
        anchor=anchor,
        path=run.path,
    )


def reported_rows(file: Path) -> list[Row]:
    """Return the results of others in a file of reported results.

    Raises:
        UserError: the file is damaged.
    """
    return [
        Row(
            kind="reported",
            dataset=result.dataset,
            version=result.version,
            split=result.split,
            backbone=result.backbone,
            trained_on=result.trained_on,
            strategy=result.strategy,
            params="",
            accuracy=result.accuracy,
            interval=result.accuracy_ci95,
            f1=result.f1_weighted,
            evaluations=result.evaluations_per_image,
            seconds=None,
            n=result.n_samples,
            marks=marks("reported", result.trained_on, {}),
            source=result.source,
        )
        for result in read_reported(file)
    ]


def reported_files(results: Path) -> list[Path]:
    """Return the files of reported results below `results`."""
    return sorted(folder / REPORTED for folder in places(results, REPORTED))


def pareto_front(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that no other beats in both evaluations and accuracy, cheapest first."""
    front: list[Row] = []
    known = [row for row in rows if row.evaluations is not None]
    for row in sorted(known, key=lambda r: (r.evaluations, -r.accuracy)):
        if not front or row.accuracy > front[-1].accuracy:
            front.append(row)
    return front


def comparable(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows of runs in groups of the same training data and the same images."""

    def group(row: Row) -> tuple[str, int]:
        return row.trained_on or "", row.n or 0

    own = [row for row in rows if row.kind in ("measured", "subset", "replayed")]
    return [list(members) for _, members in groupby(sorted(own, key=group), key=group)]
