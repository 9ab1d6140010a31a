"""Compute the data of figures: errors by timestep, confidence sequences."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats, Ints
from bench.errors import UserError
from bench.inputs.subsets import select_subset, shuffle_samples
from bench.reports.run_view import RunView
from bench.stats.questions import Results, parse_question
from bench.stats.sequential import interval_course
from bench.store.cells import read_cells, read_timesteps
from bench.store.decisions import NO_RUNNER_UP
from bench.store.folder import find_run
from bench.store.questions import QuestionAnswer
from bench.store.runs import read_run

CURVE_BINS = 40  # at most
CURVE_IMAGES = 300  # a stratified subset is enough for a mean: no need to read 200,000 files


@dataclass(frozen=True)
class Curves:
    """Errors by timestep, float64 [B] each: per bin, the mean over images of their mean error."""

    timestep: Floats  # the mean of the bin's timesteps
    true: Floats  # the error of the true class
    wrong: Floats  # the error of the best wrong class
    gap: Floats  # wrong minus true; positive where the timestep favours the true class
    gap_stderr: Floats  # the standard error of the gap, over images
    n_images: int  # number of images read


def errors_by_timestep(run: RunView) -> Curves | None:
    """Return the errors by timestep, from draws on which both classes were evaluated.

    None if the run kept no errors, has a single timestep, or has items of several images.
    """
    folder, items = run.path / "errors", run.manifest.items
    if not folder.is_dir() or (items is not None and items.images > 1):
        return None
    decided = run.decided
    assert decided.runner_up is not None
    wrong = np.where(decided.correct, decided.runner_up, decided.predictions)
    usable = np.flatnonzero(~decided.failed & (wrong != NO_RUNNER_UP))
    ids = decided.sample_ids.take(usable).to_pylist()
    labels = decided.labels[usable].tolist()
    pair_of = dict(zip(ids, zip(labels, wrong[usable].tolist(), strict=True), strict=True))
    chosen = select_subset(ids, labels, CURVE_IMAGES)
    classes = np.array(run.manifest.class_of_column, dtype=np.int64)
    pairs, steps = [], []
    for sample_id in chosen:
        try:
            timesteps = read_timesteps(folder, sample_id, 0)
            errors = read_cells(folder, sample_id, (len(classes), len(timesteps)))
        except FileNotFoundError:
            continue
        pairs.append(np.stack([_best_prompt(errors[classes == c]) for c in pair_of[sample_id]]))
        steps.append(timesteps)
    return _bin_errors(pairs, steps) if pairs else None


def _best_prompt(errors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the prompt's row with the smallest mean among those with the most evaluated cells."""
    cells = np.isfinite(errors).sum(axis=1)
    means = np.nansum(errors, axis=1) / np.maximum(cells, 1)
    best: NDArray[np.float32] = errors[np.where(cells == cells.max(), means, np.inf).argmin()]
    return best


def _bin_errors(pairs: Sequence[NDArray[np.float32]], steps: Sequence[Ints]) -> Curves | None:
    distinct = np.unique(np.concatenate(steps))
    distinct = distinct[distinct >= 0]
    n_bins = min(CURVE_BINS, len(distinct))
    if n_bins < 2:
        return None
    # Bins have equal numbers of distinct timesteps, whatever their spacing.
    bin_of_step = np.arange(len(distinct)) * n_bins // len(distinct)
    middles = np.bincount(bin_of_step, weights=distinct) / np.bincount(bin_of_step)
    means = np.full((len(pairs), 2, n_bins), np.nan)
    for means_of, pair, timesteps in zip(means, pairs, steps, strict=True):
        both = np.isfinite(pair).all(axis=0)
        bin_of = bin_of_step[np.searchsorted(distinct, timesteps[both])]
        count = np.bincount(bin_of, minlength=n_bins)
        for row, errors in zip(means_of, pair, strict=True):
            sums = np.bincount(bin_of, weights=errors[both], minlength=n_bins)
            row[count > 0] = sums[count > 0] / count[count > 0]
    n = np.isfinite(means[:, 0]).sum(axis=0)
    seen = n > 0
    if not seen.any():
        return None
    means, n = means[:, :, seen], n[seen]
    gaps = means[:, 1] - means[:, 0]
    gap = np.nanmean(gaps, axis=0)
    variance = np.nansum((gaps - gap) ** 2, axis=0) / np.maximum(n - 1, 1)
    return Curves(
        middles[seen],
        np.nanmean(means[:, 0], axis=0),
        np.nanmean(means[:, 1], axis=0),
        gap,
        np.sqrt(variance / n),
        len(pairs),
    )


@dataclass(frozen=True)
class Course:
    """A 95 % confidence sequence: intervals that are valid at all numbers of images together."""

    what: str  # "accuracy" or "difference of accuracies"
    answer: QuestionAnswer  # answer to the question
    ends: Floats  # float64 [L, 3]: images, lower end, upper end
    bounds: tuple[float, ...]  # thresholds of the question


def find_course(run: RunView) -> Course | None:
    """Return the intervals for a run's last tested question, or None if there is none.

    They are of the difference to the other run if that is stored in the same folder, and of the
    accuracy otherwise.
    """
    answers = [a for a in (entry.answer for entry in run.questions) if a and a.anytime_ci95]
    if not answers:
        return None
    answer, question = answers[-1], parse_question(answers[-1].question)
    order = shuffle_samples(run.manifest.samples, run.manifest.identity.dataset.fingerprint)
    values = run.decided.right_in(order)
    if not len(values):  # the record of the first image is damaged
        return None
    population = question.population(Results(values, None, answer.total))
    if question.run is not None and question.metric == "accuracy":
        with suppress(UserError):
            baseline = read_run(find_run(question.run, str(run.path.parent), exact=True))
            other = baseline.decided().right_in(order[: len(values)])
            if len(other):
                differences = values[: len(other)] - other
                ends = np.array(interval_course(differences, population=population))
                margin = float(question.margin)
                limits = (-margin, margin) if question.kind == "within" else (margin,)
                return Course("difference of accuracies", answer, ends, limits)
    ends = np.array(interval_course(2 * values - 1, population=population))
    ends[:, 1:] = (ends[:, 1:] + 1) / 2
    return Course("accuracy", answer, ends, ())
