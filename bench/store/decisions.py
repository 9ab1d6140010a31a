"""What became of a run's images, one column per field: 200,000 images are read in a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.store.arrow import indices, strings, truths, values
from bench.store.documents import Manifest
from bench.store.journal_table import read_table, to_table
from bench.store.records import TOP_CLASSES, Record

FAILED = -1  # the prediction of a sample that failed: no class, so it counts as wrong
NOBODY = -2  # the runner-up where there is none; no class, and no failed sample either


@dataclass(frozen=True)
class Decisions:
    """Decided images; every column has their number n as its length.

    Attributes:
        sample_ids: pyarrow strings.
        labels: int64, the true class.
        predictions: int64, -1 where the sample failed.
        margins: float64, the runner-up's score less the winner's; NaN where unknown.
        margin_stderr: float64, the standard error of the margin; NaN where unknown.
        confidence: float64; NaN where unknown.
        evaluations: int64.
        linearisations: int64, draws linearised.
        equivalents: float64, what both cost, in evaluations.
        seconds: float64, of scoring.
        failed: bool.
        in_top5: bool, whether the true class is among the five best; None where it was not read.
        runner_up: int64, the second best class, -2 where there is none; None likewise.
        gaps: float64 [n, 9], the scores of the classes after the first, as far as a record has
            them, less the winner's; infinity where there is none; None likewise.
        draws: int64, of the winner; 0 where the sample failed; None likewise.
        in_candidates: bool, whether the true class was among the candidates; None where all classes
            were.
        groups: pyarrow strings, null where a sample has no group; None where none has one.
        image_right: bool, whether an item's images are right; None where none of them compares.
        group_right: bool, whether all of an item is right; None likewise.
        decided_by: pyarrow strings, what ended each image, null where nothing says so; None where
            nothing says so of any.
    """

    sample_ids: Any
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    margins: NDArray[np.float64]
    margin_stderr: NDArray[np.float64]
    confidence: NDArray[np.float64]
    evaluations: NDArray[np.int64]
    linearisations: NDArray[np.int64]
    equivalents: NDArray[np.float64]
    seconds: NDArray[np.float64]
    failed: NDArray[np.bool_]
    in_top5: NDArray[np.bool_] | None = None
    runner_up: NDArray[np.int64] | None = None
    gaps: NDArray[np.float64] | None = None
    draws: NDArray[np.int64] | None = None
    in_candidates: NDArray[np.bool_] | None = None
    groups: Any = None
    image_right: NDArray[np.bool_] | None = None
    group_right: NDArray[np.bool_] | None = None
    decided_by: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, bool [n]; a failed sample is wrong."""
        return np.equal(self.labels, self.predictions)


Decided = Decisions | Sequence[Record]  # what the analysis takes


def read_decisions(path: Path, manifest: Manifest, top: bool = False) -> Decisions:
    """Read what became of the samples that a run's manifest asks for, in its order.

    Errors of margins that `Manifest.margin_errors_known` denies count as unknown.

    Args:
        path: the run's folder.
        manifest: its manifest.
        top: read `in_top5`, `runner_up` and `gaps` as well, for half as much time again.
    """
    import pyarrow.compute as pc

    table = read_table(path, len(manifest.classes), top)
    asked, there = strings(manifest.samples), table["sample_id"].combine_chunks()
    if not asked.equals(there):
        table = table.take(pc.index_in(asked, value_set=there).drop_null())
    decided = _from_table(table)
    if manifest.margin_errors_known:
        return decided
    unknown = np.full(len(decided), np.nan)
    return replace(decided, margin_stderr=unknown, confidence=unknown)


def join_decisions(parts: Sequence[Decisions], order: NDArray[np.int64]) -> Decisions:
    """Return the images of several parts as one, reordered: the i-th is `order[i]` of all."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for field in fields(Decisions):
        found = [getattr(part, field.name) for part in parts]
        if all(column is None for column in found):
            continue
        if any(isinstance(column, pa.Array | pa.ChunkedArray) for column in found):
            whole = [
                pa.nulls(len(p), pa.string()) if c is None else c
                for p, c in zip(parts, found, strict=True)
            ]
            chunks = [chunk for c in whole for chunk in getattr(c, "chunks", [c])]
            columns[field.name] = pa.chunked_array(chunks).take(indices(order)).combine_chunks()
        else:
            whole = [
                np.zeros(len(p), bool) if c is None else c
                for p, c in zip(parts, found, strict=True)
            ]
            columns[field.name] = np.concatenate(whole)[order]
    return Decisions(**columns)


def as_decisions(decided: Decided) -> Decisions:
    """Return records as columns; columns as they are."""
    return decided if isinstance(decided, Decisions) else _from_table(to_table(decided))


def _from_table(table: Any) -> Decisions:
    labels = values(table["label"])
    of_top = _from_top(table, labels) if "top" in table.column_names else (None,) * 4
    in_top5, runner_up, gaps, draws = of_top
    return Decisions(
        sample_ids=table["sample_id"].combine_chunks(),
        labels=labels,
        predictions=values(table["prediction"], FAILED),
        margins=values(table["margin"], np.nan),
        margin_stderr=values(table["margin_stderr"], np.nan),
        confidence=values(table["confidence"], np.nan),
        evaluations=values(table["evaluations"]),
        linearisations=values(table["linearisations"], 0),
        equivalents=_equivalents(table),
        seconds=values(table["seconds"]),
        failed=truths(table["error"].is_valid()),
        in_top5=in_top5,
        runner_up=runner_up,
        gaps=gaps,
        draws=draws,
        in_candidates=_answers(table["in_candidates"]),
        groups=None if table["group"].null_count == len(table) else table["group"],
        image_right=_answers(table["image_right"]),
        group_right=_answers(table["group_right"]),
        decided_by=None if table["decided_by"].null_count == len(table) else table["decided_by"],
    )


def _answers(column: Any) -> NDArray[np.bool_] | None:
    """Return a column of answers, a failed sample's wrong; None where there is none."""
    if column.null_count == len(column):
        return None
    return truths(column.fill_null(False))


def _from_top(
    table: Any, labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return of `top` whether the label is among its first five, its second class, gaps, draws."""
    entries = table["top"].combine_chunks()  # [n] lists of [class, score, draws]
    sizes = values(entries.value_lengths(), 0)
    start = np.cumsum(sizes) - sizes  # of each image's entries among all of them
    flat = values(entries.flatten().flatten(), np.nan).reshape(-1, 3)
    in_top5 = np.zeros(len(labels), dtype=bool)
    runner_up = np.full(len(labels), NOBODY, dtype=np.int64)
    gaps = np.full((len(labels), TOP_CLASSES - 1), np.inf)
    draws = np.zeros(len(labels), dtype=np.int64)
    draws[sizes > 0] = flat[start[sizes > 0], 2]
    for place in range(min(TOP_CLASSES, int(sizes.max(initial=0)))):
        has = sizes > place
        classes, scores = flat[start[has] + place, :2].T
        if place < 5:
            in_top5[has] |= classes == labels[has]
        if place == 1:
            runner_up[has] = classes
        if place:
            gaps[has, place - 1] = scores - flat[start[has], 1]
    gaps[np.isnan(gaps)] = np.inf  # a class without a draw has no score
    return in_top5, runner_up, gaps, draws


def _equivalents(table: Any) -> NDArray[np.float64]:
    """Without linearisations, an image's equivalents are its evaluations."""
    import pyarrow.compute as pc

    return values(pc.coalesce(table["equivalents"], table["evaluations"].cast("double")))
