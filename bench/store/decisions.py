"""A run's decisions, one column per field, and the scores of all classes.

200,000 images are read in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats, Ints
from bench.discovery.loading import exhaustive
from bench.errors import UserError
from bench.store.arrow import booleans, strings, values
from bench.store.cells import read_cells
from bench.store.documents import Manifest
from bench.store.draw_table import read_draws
from bench.store.journal import read_table, to_table
from bench.store.records import TOP_CLASSES, Record

FAILED = -1  # the prediction of a sample that failed: no class, so it counts as wrong
NOBODY = -2  # the runner-up where there is none: neither a class nor a failed sample


@dataclass(frozen=True)
class Decisions:
    """Decided images; every column has their number n as its length.

    The columns from `in_top5` to `draws` are None where `top` was not read, and those after them
    where no image has a value.
    """

    sample_ids: Any  # pyarrow strings
    labels: Ints  # true classes
    predictions: Ints  # -1 where the sample failed
    margins: Floats  # runner-up's score less the winner's; NaN where unknown
    margin_stderr: Floats  # standard error of the margin; NaN where unknown
    confidence: Floats  # NaN where unknown
    evaluations: Ints
    linearisations: Ints
    equivalents: Floats  # evaluation equivalents of both
    seconds: Floats  # scoring time
    failed: NDArray[np.bool_]
    in_top5: NDArray[np.bool_] | None = None  # whether the true class is among the five best
    runner_up: Ints | None = None  # second best class, -2 where there is none
    gaps: Floats | None = None  # [n, 9], other scores less the winner's; inf: none
    draws: Ints | None = None  # of the winner; 0 where the sample failed
    in_candidates: NDArray[np.bool_] | None = None  # whether the true class was a candidate
    groups: NDArray[np.str_] | None = None  # "" where a sample has no group
    image_right: NDArray[np.bool_] | None = None  # whether an item's images are right
    group_right: NDArray[np.bool_] | None = None  # whether all of an item is right
    decided_by: Any = None  # pyarrow strings, what ended each image, null where unreported

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, bool [n]; a failed sample is wrong."""
        return np.equal(self.labels, self.predictions)

    def right_by_id(self) -> dict[str, bool]:
        """Return whether each prediction is right, by sample id."""
        return dict(zip(self.sample_ids.to_pylist(), self.correct.tolist(), strict=True))


def read_decisions(path: Path, manifest: Manifest, top: bool = False) -> Decisions:
    """Read the decisions on the samples that a run's manifest asks for, in its order.

    Standard errors of margins are unknown where `Manifest.margin_errors_known` denies them.
    With `top`, `in_top5` to `draws` are read as well, which takes half as long again.
    """
    return read_parts([(path, manifest.samples)], manifest, top)


def read_parts(
    parts: Sequence[tuple[Path, Sequence[str]]], manifest: Manifest, top: bool = False
) -> Decisions:
    """Read a run's decisions from folders, each with ids of samples; see `read_decisions`."""
    import pyarrow as pa

    tables = [
        _rows(read_table(path, len(manifest.classes), top), samples) for path, samples in parts
    ]
    decided = _from_table(_rows(pa.concat_tables(tables), manifest.samples))
    if manifest.margin_errors_known:
        return decided
    unknown = np.full(len(decided), np.nan)
    return replace(decided, margin_stderr=unknown, confidence=unknown)


def _rows(table: Any, samples: Sequence[str]) -> Any:
    """Return the rows of these samples in their order; samples without a row are left out."""
    import pyarrow.compute as pc

    wanted, stored = strings(samples), table["sample_id"].combine_chunks()
    if wanted.equals(stored):
        return table
    return table.take(pc.index_in(wanted, value_set=stored).drop_null())


def as_decisions(records: Sequence[Record]) -> Decisions:
    """Return records as columns."""
    return _from_table(to_table(records))


def _from_table(table: Any) -> Decisions:
    import pyarrow.compute as pc

    labels = values(table["label"])
    of_top = _from_top(table, labels) if "top" in table.column_names else {}
    groups = _if_any(table["group"])
    # Without linearisations, an image's equivalents are its evaluations.
    equivalents = pc.coalesce(table["equivalents"], table["evaluations"].cast("double"))
    return Decisions(
        sample_ids=table["sample_id"].combine_chunks(),
        labels=labels,
        predictions=values(table["prediction"], FAILED),
        margins=values(table["margin"], np.nan),
        margin_stderr=values(table["margin_stderr"], np.nan),
        confidence=values(table["confidence"], np.nan),
        evaluations=values(table["evaluations"]),
        linearisations=values(table["linearisations"], 0),
        equivalents=values(equivalents),
        seconds=values(table["seconds"]),
        failed=booleans(table["error"].is_valid()),
        **of_top,
        in_candidates=_optional_booleans(table["in_candidates"]),
        groups=None if groups is None else np.array(groups.fill_null("").to_pylist()),
        image_right=_optional_booleans(table["image_right"]),
        group_right=_optional_booleans(table["group_right"]),
        decided_by=_if_any(table["decided_by"]),
    )


def _if_any(column: Any) -> Any:
    return None if column.null_count == len(column) else column.combine_chunks()


def _optional_booleans(column: Any) -> NDArray[np.bool_] | None:
    """Return a column of truth values, false for a failed sample; None where it has only nulls."""
    return None if _if_any(column) is None else booleans(column.fill_null(False))


def _from_top(table: Any, labels: Ints) -> dict[str, NDArray[Any]]:
    """Return the columns `in_top5`, `runner_up`, `gaps` and `draws` of `Decisions`."""
    sizes, flat = _top_entries(table)
    start = np.cumsum(sizes) - sizes  # of each image's entries among all of them
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
    return {"in_top5": in_top5, "runner_up": runner_up, "gaps": gaps, "draws": draws}


def _top_entries(table: Any) -> tuple[Ints, Floats]:
    """Return the number of each image's best classes, and their class, score, draws, [all, 3]."""
    entries = table["top"].combine_chunks()
    sizes = values(entries.value_lengths(), 0)
    return sizes, values(entries.flatten().flatten(), np.nan).reshape(-1, 3)


def class_scores(path: Path, manifest: Manifest, sample_ids: Any) -> Floats:
    """Return the mean error of each class on the same draws, float64 [n, C]; lower is better.

    `sample_ids` are pyarrow strings. UserError: the images have texts or candidates of their own,
    one failed, a class was stopped early, or the run keeps neither all scores nor all errors.
    """
    classes = len(manifest.classes)
    if manifest.items or manifest.identity.candidates:
        raise UserError("its images have texts or candidates of their own, so no class has all.")
    if classes > TOP_CLASSES:
        return _of_errors(path, manifest, sample_ids)
    scores, draws = _of_records(path, classes, sample_ids)
    if (draws == 0).all(axis=1).any():
        raise UserError("an image failed, and has no scores; the same `bench run` tries it again.")
    if np.isnan(scores).any() or (draws != draws.max()).any():
        raise UserError(
            f"its strategy {manifest.strategy.name} stopped some classes early, so that their"
            " scores are of fewer draws (censored). A strategy that evaluates all classes on the"
            f" same draws is needed, such as {exhaustive()}."
        )
    return scores


def _of_records(path: Path, classes: int, sample_ids: Any) -> tuple[Floats, Ints]:
    """Return the scores, NaN where a class has none, and their draws, int64; [n, C] each."""
    import pyarrow.compute as pc

    table = read_table(path, classes, top=True)
    stored = table["sample_id"].combine_chunks()
    sizes, flat = _top_entries(table.take(pc.index_in(sample_ids, value_set=stored)))
    rows, of_class = np.repeat(np.arange(len(sizes)), sizes), flat[:, 0].astype(np.int64)
    scores = np.full((len(sizes), classes), np.nan)
    draws = np.zeros((len(sizes), classes), dtype=np.int64)
    scores[rows, of_class], draws[rows, of_class] = flat[:, 1], flat[:, 2].astype(np.int64)
    return scores, draws


def _of_errors(path: Path, manifest: Manifest, sample_ids: Any) -> Floats:
    """Return the scores from the stored errors: of each class, those of its best prompt."""
    of_prompt = np.array([label for _, label in manifest.prompts])
    count, draws = manifest.strategy.params.get("draws"), read_draws(path)
    if draws is None or not count or manifest.identity.scoring.reduction not in (None, "mean"):
        raise UserError(
            f"its records keep the {TOP_CLASSES} best of {len(manifest.classes)} classes. With"
            " --save-errors, a run of a denoiser keeps the scores of all."
        )
    shape, weights = (len(of_prompt), len(draws.weights)), draws.weights
    scores = np.full((len(sample_ids), len(manifest.classes)), np.inf)
    for row, sample_id in enumerate(sample_ids.to_pylist()):
        try:
            errors = read_cells(path / "errors", sample_id, shape).astype(np.float64)
        except FileNotFoundError:
            raise UserError(f"it keeps no errors of image {sample_id!r}.") from None
        drawn = np.isfinite(errors).any(axis=0)
        if not np.isfinite(errors[:, drawn]).all() or not drawn.any():
            raise UserError(
                f"its strategy {manifest.strategy.name} evaluated image {sample_id!r} with some"
                " prompts only (censored). A strategy that evaluates all classes on the same draws"
                f" is needed, such as {exhaustive()}."
            )
        means = np.average(errors[:, drawn], axis=1, weights=weights[drawn])
        np.minimum.at(scores[row], of_prompt, means)
    return scores
