"""What learned parameters of a race do to images that they were not learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Ints
from bench.discovery.loading import learning
from bench.errors import UserError
from bench.recordings.recording import Recording
from bench.recordings.replay import decide, strategy_for
from bench.stats.paired import paired_test
from bench.stats.shares import accuracy_interval
from bench.store.fields import Document

Params = Mapping[str, str | float]  # of a race

FOLDS = 5
ENOUGH = 20  # images, so that a fold has four or more
MAX_LOSS = 0.05  # of agreement, that a recommendation leaves room for


class OrderTrial(Document):
    """A race with learned parameters, on images that they were not learned from.

    Each fold of the images is decided with the parameters that the other folds teach; with fewer
    than 20 images, all of them with the parameters that they teach themselves.
    """

    params: Parameters
    """Parameters of the race, as learned from all images."""
    cost: float
    """Evaluations per image."""
    agreement: float
    """Share of the images that the race decides as the full sweep does."""
    agreement_ci95: tuple[float, float]
    """Its Wilson interval."""
    difference: float
    """The agreement less that of the race without learned parameters."""
    difference_ci95: tuple[float, float]
    """Its interval, paired image by image (Tango)."""


def decisions(
    recording: Recording, samples: Sequence[Sample], params: Params, strategy: str | None = None
) -> list[Decided]:
    """Return how a strategy decides recorded images; None: the one that learns an order."""
    strategy = strategy or learning("order").name
    made, questions = strategy_for(recording, strategy, params)[2], recording.questions
    return [
        decide(sample, recording.tables(sample.sample_id), made, questions.of(sample).problem)
        for sample in samples
    ]


def cross_validated(
    recording: Recording, samples: Sequence[Sample], learned: Callable[[Ints], list[Params]]
) -> list[list[Decided]]:
    """Return how the images are decided with each choice of parameters learned from other images.

    Args:
        recording: the recorded run.
        samples: the images, at least as many as folds.
        learned: returns the choices of parameters that some rows of the images teach.
    """
    fold_of = np.random.default_rng(0).permutation(len(samples)) % FOLDS
    decided: dict[int, list[Decided]] = {}
    for fold in range(FOLDS):
        rows = np.flatnonzero(fold_of == fold).tolist()
        left_out = [samples[row] for row in rows]
        tried = [
            decisions(recording, left_out, p) for p in learned(np.flatnonzero(fold_of != fold))
        ]
        decided.update(zip(rows, map(list, zip(*tried, strict=True)), strict=True))
    return [list(choice) for choice in zip(*map(decided.__getitem__, sorted(decided)), strict=True)]


def compared(
    chosen: Sequence[Params], decided: Sequence[Sequence[Decided]], full: Sequence[Decided]
) -> list[OrderTrial]:
    """Return the trials of some choices of parameters; the first is the one without any.

    Args:
        chosen: the parameters.
        decided: the images under each of them.
        full: the same images under the full sweep.
    """
    winners = np.array([_winner(image) for image in full])
    agrees = [np.array([_winner(image) for image in images]) == winners for images in decided]
    trials = []
    for params, images, agreed in zip(chosen, decided, agrees, strict=True):
        difference = paired_test(agrees[0], agreed)
        trials.append(
            OrderTrial(
                params=dict(params),
                cost=float(np.mean([image.evaluations for image in images])),
                agreement=float(agreed.mean()),
                agreement_ci95=accuracy_interval(int(agreed.sum()), len(agreed)),
                difference=difference["difference"],
                difference_ci95=difference["difference_ci95"],
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


def _winner(decided: Decided) -> int:
    """Return the class, or the answer, that was decided on.

    Raises:
        UserError: what is recorded of the image decides nothing.
    """
    if decided.outcome is None:
        raise UserError(f"The recorded errors of {decided.sample.sample_id}: {decided.error}.")
    return int(decided.outcome.ranking[0])
