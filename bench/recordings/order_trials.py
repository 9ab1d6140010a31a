"""What learned parameters of a race do to images that they were not learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Ints
from bench.discovery.loading import learning
from bench.errors import UserError
from bench.recordings.recording import Recording
from bench.recordings.replay import replayed, strategy_for
from bench.stats.paired import paired_test
from bench.stats.shares import accuracy_interval
from bench.store.decisions import as_decisions
from bench.store.fields import Document
from bench.store.records import Record

RaceParams = Mapping[str, str | float]

TRIAL_FOLDS = 5
MIN_HELD_OUT = 20  # images, so that a fold has four or more
MAX_LOSS = 0.05  # of agreement, that a recommendation leaves room for


class OrderTrial(Document):
    """A race with learned parameters, on images that they were not learned from.

    Each fold of the images is decided with the parameters that the other folds teach; with fewer
    than 20 images, all of them with the parameters that they teach themselves.
    """

    params: Parameters  # parameters of the race, as learned from all images
    cost: float  # evaluations per image
    agreement: float  # share of the images that the race decides as the full sweep does
    agreement_ci95: tuple[float, float]  # its Wilson interval
    difference: float  # the agreement less that of the race without learned parameters
    difference_ci95: tuple[float, float]  # its interval, paired image by image (Tango)


def raced(
    recording: Recording, samples: Sequence[Sample], choices: Sequence[RaceParams]
) -> list[list[Record]]:
    """Return the records of the samples under each choice of parameters of the race."""
    race = learning("order").name
    return replayed(
        recording, samples, [strategy_for(recording, race, params)[1] for params in choices]
    )


def evaluations_per_image(records: Sequence[Record]) -> float:
    """Return the mean number of evaluations."""
    return float(np.mean([record["evaluations"] for record in records]))


def cross_validated(
    recording: Recording, samples: Sequence[Sample], learned: Callable[[Ints], list[RaceParams]]
) -> list[list[Record]]:
    """Return the records of the samples under each choice that the other folds teach."""
    fold_of = np.random.default_rng(0).permutation(len(samples)) % TRIAL_FOLDS
    by_row: dict[int, tuple[Record, ...]] = {}
    for fold in range(TRIAL_FOLDS):
        rows = np.flatnonzero(fold_of == fold).tolist()
        choices = learned(np.flatnonzero(fold_of != fold))
        records = raced(recording, [samples[row] for row in rows], choices)
        by_row |= zip(rows, zip(*records, strict=True), strict=True)
    return [list(choice) for choice in zip(*(by_row[row] for row in sorted(by_row)), strict=True)]


def order_trials(
    chosen: Sequence[RaceParams], tried: Sequence[Sequence[Record]], full: Sequence[Record]
) -> list[OrderTrial]:
    """Return a trial per choice of parameters, the first without any (UserError)."""
    for record in (*full, *(record for records in tried for record in records)):
        if record["prediction"] is None:
            raise UserError(f"The recorded errors of {record['sample_id']}: {record['error']}.")
    winners = as_decisions(full).predictions
    agrees = [as_decisions(records).predictions == winners for records in tried]
    trials = []
    for params, records, agreed in zip(chosen, tried, agrees, strict=True):
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


def recommended(trials: Sequence[OrderTrial]) -> Parameters | None:
    """Return the parameters of the cheapest trial that is shown to lose no agreement.

    It agrees at least as often as the first trial, which learned nothing, and the interval of the
    difference excludes a loss of more than `MAX_LOSS`: without a changed decision, 73 images do.
    None where no such trial is cheaper.
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
