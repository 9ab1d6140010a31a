"""Trials of learned race parameters on recorded images, by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery.loading import exhaustive_strategy
from bench.errors import UserError
from bench.recordings.recording import Recording
from bench.recordings.replay import decider_for, replay_samples
from bench.stats.paired import paired_test
from bench.stats.shares import accuracy_interval
from bench.store.decisions import as_decisions
from bench.store.fields import Document
from bench.store.records import Record

TRIAL_FOLDS = 5
MIN_HELD_OUT = 20  # minimum number of images for cross-validation, four per fold
MAX_LOSS = 0.05  # loss of agreement that must be excluded before parameters are recommended

RaceParams = Mapping[str, Any]


class OrderTrial(Document):
    """A race with learned parameters, on images that they were not learned from.

    The images of each fold are decided with parameters learned from the other folds. With fewer
    than 20 images, all of them are decided with parameters learned from these same images.
    """

    params: Parameters  # parameters of the race, learned from all images
    cost: float  # evaluations per image
    agreement: float  # share of images on which the race agrees with the full sweep
    agreement_ci95: tuple[float, float]  # Wilson interval
    difference: float  # agreement minus that of the race without learned parameters
    difference_ci95: tuple[float, float]  # paired interval (Tango)


class LearnedRaces(Document):
    """Races with parameters that were learned from a recording."""

    run_id: str
    n_samples: int
    held_out: bool  # whether the trials used only images that were not learned from
    trials: list[OrderTrial]  # the race without learned parameters, then with each choice of them
    recommended: Parameters | None
    """Parameters of the cheapest trial that costs less than the race without learned parameters and
    is shown to agree with the full sweep as often, to within 5 points; None if there is none."""


def compare_races(
    recording: Recording,
    samples: Sequence[Sample],
    race: str,
    choices: Sequence[RaceParams],
    learn: Callable[[Ints], Sequence[RaceParams]],
) -> LearnedRaces:
    """Try races with learned parameters on the recorded images: their cost and agreement.

    With 20 images or more, this is done by five-fold cross-validation. Otherwise the races are
    tried on the images that they were learned from, and none is recommended. The first of `choices`
    has no learned parameters; those of the others are learned from all images. `learn` is called
    with row indices of `samples` and returns the same choices, learned from these.
    """
    held_out = len(samples) >= MIN_HELD_OUT
    if held_out:
        fold_of = np.random.default_rng(0).permutation(len(samples)) % TRIAL_FOLDS
        by_row: dict[int, tuple[Record, ...]] = {}
        for fold in range(TRIAL_FOLDS):
            rows = np.flatnonzero(fold_of == fold).tolist()
            learned = learn(np.flatnonzero(fold_of != fold))
            records = race_samples(recording, [samples[row] for row in rows], race, learned)
            by_row |= zip(rows, zip(*records, strict=True), strict=True)
        tried = list(zip(*(by_row[row] for row in range(len(samples))), strict=True))
    else:
        tried = list(map(tuple, race_samples(recording, samples, race, choices)))
    [full] = race_samples(recording, samples, exhaustive_strategy(), [{}])
    trials = _order_trials(choices, tried, full)
    return LearnedRaces(
        run_id=recording.manifest.run_id,
        n_samples=len(samples),
        held_out=held_out,
        trials=trials,
        recommended=choose_recommended(trials) if held_out else None,
    )


def race_samples(
    recording: Recording, samples: Sequence[Sample], race: str, choices: Sequence[RaceParams]
) -> list[list[Record]]:
    """Replay a strategy on some images; return their records for each choice of parameters."""
    strategies = [decider_for(recording, race, params).strategy for params in choices]
    return replay_samples(recording, samples, strategies)


def _order_trials(
    choices: Sequence[RaceParams], tried: Sequence[Sequence[Record]], full: Sequence[Record]
) -> list[OrderTrial]:
    """Return one trial per choice, each compared with the full sweep and with the first choice."""
    for record in (*full, *(record for records in tried for record in records)):
        if record["prediction"] is None:
            raise UserError(f"The recorded errors of {record['sample_id']}: {record['error']}.")
    winners = as_decisions(full).predictions
    agrees = [as_decisions(records).predictions == winners for records in tried]
    trials = []
    for params, records, agreed in zip(choices, tried, agrees, strict=True):
        difference = paired_test(agrees[0], agreed)
        trials.append(
            OrderTrial(
                params=dict(params),
                cost=evaluations_per_image(records),
                agreement=float(agreed.mean()),
                agreement_ci95=accuracy_interval(int(agreed.sum()), len(agreed)),
                difference=difference.difference,
                difference_ci95=difference.difference_ci95,
            )
        )
    return trials


def choose_recommended(trials: Sequence[OrderTrial]) -> Parameters | None:
    """Return the parameters of the cheapest trial that is shown to keep the agreement.

    Such a trial costs less than the first one, which has no learned parameters, and agrees with the
    full sweep at least as often. The interval of the difference excludes a loss of more than
    `MAX_LOSS`; if no decision changes, that takes 73 images. None if there is no such trial.
    """
    first, *others = trials
    safe = [
        trial
        for trial in others
        if trial.difference >= 0
        and trial.difference_ci95[0] >= -MAX_LOSS
        and trial.cost < first.cost
    ]
    return min(safe, key=lambda trial: trial.cost).params if safe else None


def evaluations_per_image(records: Sequence[Record]) -> float:
    """Return the mean number of evaluations per record."""
    return float(np.mean([record["evaluations"] for record in records]))


def image_errors(recording: Recording, sample: Sample) -> Iterator[tuple[Problem, Floats]]:
    """Yield the problem and the errors, float64 [P, N], of each image of a sample."""
    problem = recording.questions.of(sample).problem
    table = recording.errors(sample.sample_id).astype(np.float64)
    for errors in table.reshape(-1, len(problem.class_of_prompt), table.shape[1]):
        yield problem, errors
