"""The scores of all classes of a run's images, from its records or its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.strategy import Floats, Ints
from bench.discovery.loading import exhaustive
from bench.errors import UserError
from bench.store.arrow import values
from bench.store.cells import read_cells
from bench.store.documents import Manifest
from bench.store.draw_table import read_draws
from bench.store.journal import read_table
from bench.store.records import TOP_CLASSES


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
    entries = table.take(pc.index_in(sample_ids, value_set=stored))["top"].combine_chunks()
    sizes = values(entries.value_lengths(), 0)
    flat = values(entries.flatten().flatten(), np.nan).reshape(-1, 3)
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
