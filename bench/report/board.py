"""The report's leaderboards: its runs, and what others reported on the same data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from bench.analysis.boards import assignments
from bench.analysis.reported import REPORTED
from bench.report.runs import RunData, marks


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        kind: measured, subset, replayed, incomplete or reported.
        evaluations: denoiser evaluations an image; None: not known.
        interval: the 95 % Wilson interval of the accuracy; None: not known.
        marks: (kind of mark, text), what tells the result apart.
        source: a run id, or where a reported result was published.
        anchor: the id of the run's section on the page; "" where it has none.
        key: the letters that stand for it in the figure.
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
    """Return one board a dataset, version and split; ranks count among what compares.

    A rank is counted among results measured on the whole split with backbones trained on the same
    thing. Reported results name no version: they stand beside the newest. A board without a run
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
    ranks: dict[str | None, int] = {}
    ranked = []
    for position, row in enumerate(rows):
        rank = None
        if row.kind == "measured":
            rank = ranks[row.trained_on] = ranks.get(row.trained_on, 0) + 1
        ranked.append(replace(row, rank=rank, key=letters(position)))
    return ranked


def letters(position: int) -> str:
    """Return A, B, … Z, AA, AB, … for 0, 1, …"""
    text = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, len(ascii_uppercase))
        text = ascii_uppercase[rest] + text
    return text


def row_of(run: RunData, anchor: str) -> Row:
    """Return a run's row."""
    summary = run.summary
    data, metrics, cost = summary["dataset"], summary["metrics"], summary["cost"]
    rate = cost["images_per_second"]
    low, high = metrics["accuracy_ci95"]
    return Row(
        kind=run.kind,
        dataset=data["name"],
        version=data["version"],
        split=data["split"],
        backbone=summary["backbone"]["name"],
        trained_on=summary["backbone"]["trained_on"],
        strategy=summary["strategy"]["name"],
        params=assignments(summary["strategy"]["params"]),
        accuracy=metrics["accuracy"],
        interval=(low, high),
        f1=metrics["f1_weighted"],
        evaluations=cost["evaluations_per_image"],
        seconds=1 / rate if rate else None,
        n=data["n_samples"],
        marks=marks(run.kind, summary["backbone"]["trained_on"], data),
        source=f"run {run.run_id}",
        anchor=anchor,
    )


def reported_rows(file: Path) -> list[Row]:
    """Return the results of others in a file of reported results.

    Raises:
        OSError, ValueError, KeyError, TypeError or AttributeError: the file is damaged.
    """
    entries: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return [
        Row(
            kind="reported",
            dataset=str(entry["dataset"]),
            version=None,
            split=str(entry["split"]),
            backbone=str(entry["backbone"]),
            trained_on=entry.get("trained_on"),
            strategy=str(entry["strategy"]),
            params="",
            accuracy=float(entry["accuracy"]),
            interval=None,
            f1=entry.get("f1_weighted"),
            evaluations=entry.get("evaluations_per_image"),
            seconds=None,
            n=entry.get("n_samples"),
            marks=marks("reported", entry.get("trained_on"), {}),
            source=str(entry["source"]),
        )
        for entry in entries
    ]


def reported_files(results: Path) -> list[Path]:
    """Return the files of reported results below `results`."""
    return sorted(results.rglob(REPORTED))


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
