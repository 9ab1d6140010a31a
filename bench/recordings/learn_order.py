"""Learn from recorded errors which timesteps tell the classes apart in the fewest draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.contracts.dataset import Sample, asks_for_images
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery.loading import exhaustive, learning
from bench.errors import UserError
from bench.recordings.recording import Recording, open_draws
from bench.recordings.replay import decider_for, replayed
from bench.stats.paired import paired_test
from bench.stats.shares import accuracy_interval
from bench.store.decisions import as_decisions
from bench.store.fields import Document
from bench.store.records import Record

MAX_PARTS = 20  # parts of the draws, as many as Clark & Jaini learn weights for
Z = 3.0  # standard errors at which a race would drop a rival
TRIAL_FOLDS = 5
MIN_HELD_OUT = 20  # images, so that a fold has four or more
MAX_LOSS = 0.05  # of agreement, that a recommendation leaves room for

RaceParams = Mapping[str, Any]


class PartCost(Document):
    """Estimated cost per image of a race on one part of the draws alone."""

    timesteps: str
    cost: float


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


class LearnedRaces(Document):
    """Races with parameters that were learned from a recording."""

    run_id: str
    n_samples: int
    held_out: bool  # whether the trials are on images that were not learned from
    trials: list[OrderTrial]  # the race without learned parameters, and with each choice of them
    recommended: Parameters | None
    """Parameters of the cheapest trial that costs less than the race without learned parameters and
    is shown to agree with the full sweep as often, to within 5 points; None: there is none."""


class LearnedOrder(LearnedRaces):
    """An order of the draws that was learned from a recording."""

    order: str  # band of timesteps, as `race` takes it
    cost: float  # evaluations per image, or per item, of `race` in that order
    cost_even: float  # evaluations per image of `race` in the even order
    deviation: float
    """Standard deviation of a difference on one draw, as `race` takes it with this order."""
    deviation_even: float  # standard deviation for the even order
    cost_with_deviation: float
    """Evaluations of `race` in the learned order with the deviation, which looks after one draw."""
    cost_even_with_deviation: float  # evaluations of `race` in the even order with its deviation
    span: float  # largest difference of two errors on a draw
    parts: list[PartCost]


class _Evidence(NamedTuple):
    """What the recorded images say, one row per image."""

    costs: Floats  # float64 [n, bands], the estimated cost of a race on each band alone
    misses: Floats  # float64 [n, N], squared deviations from the mean differences, over rivals
    rivals: Ints  # int64 [n], number of rivals
    span: float  # largest difference of two errors on a draw


def learn_order(path: Path, limit: int | None = None) -> LearnedOrder:
    """Find the band of timesteps on which a race of the recorded images would have been cheapest.

    A band is a run of neighbouring parts of the draws. To tell a rival class from the exhaustive
    winner takes (Z s / m)² draws, where m and s are mean and standard deviation of their paired
    differences on the band, s from neighbouring draws; all N where the band orders the two wrongly.
    A race costs the draws of every rival, and for the winner the most of these. The band with the
    lowest mean cost is returned, as `race` takes it (order=650-850). The race asks for its draws
    first and for the others afterwards, so the score is not re-weighted. But a prompt that is
    dropped on the band was judged on the band alone: where the band orders prompts otherwise than
    all levels do, winners are lost.

    The cost in that order and in the even one is measured by running the race on the recorded
    errors, as `bench replay` does. How often it decides as the full sweep does is measured by
    cross-validation: order and deviation are learned from four fifths of the images and tried on
    the other fifth. With fewer than 20 images they are tried on the images themselves, and nothing
    is recommended.

    Learn from other images than those that the order is then tested on. `path` is the folder of a
    run with --strategy full --save-errors (UserError), `limit` a number of its images.
    """
    recording = open_draws(path)
    items = recording.manifest.items
    if items is not None and asks_for_images(items.images, items.texts):
        raise UserError(
            f"{recording.manifest.run_id} asks which image fits a text; an order is that of a race"
            " among the texts of one image."
        )
    timesteps = recording.problem.timesteps
    parts = np.array_split(np.arange(len(timesteps)), min(MAX_PARTS, len(timesteps)))
    bands = [(a, b) for a in range(len(parts)) for b in range(a, len(parts))]
    spans = [(int(parts[a][0]), int(parts[b][-1])) for a, b in bands]
    names = [f"{timesteps[first]}-{timesteps[last]}" for first, last in spans]
    samples, race = recording.some(limit), learning("order").name
    evidence = _evidence(recording, samples, spans)

    def learned(rows: Ints) -> list[RaceParams]:
        """Return the parameters learned from some images: none, and each choice."""
        order = names[int(evidence.costs[rows].mean(axis=0).argmin())]
        plain: list[RaceParams] = [{}, {"order": order}]
        deviations = [_deviation(recording, evidence, rows, params) for params in plain]
        return plain + [
            {**params, "deviation": deviation, "first": 1} if deviation else params
            for params, deviation in zip(plain, deviations, strict=True)
        ]

    _, banded, even_known, banded_known = chosen = learned(np.arange(len(samples)))
    costs = list(map(evaluations_per_image, raced(recording, samples, race, chosen)))
    mean = evidence.costs.mean(axis=0)
    return LearnedOrder(
        order=str(banded["order"]),
        cost=costs[1],
        cost_even=costs[0],
        deviation=float(banded_known.get("deviation", 0.0)),
        deviation_even=float(even_known.get("deviation", 0.0)),
        cost_with_deviation=costs[3],
        cost_even_with_deviation=costs[2],
        span=evidence.span,
        parts=[
            PartCost(timesteps=name, cost=float(cost))
            for name, cost, (a, b) in zip(names, mean, bands, strict=True)
            if a == b
        ],
        **dict(learned_races(recording, samples, race, chosen, learned)),
    )


def _evidence(
    recording: Recording, samples: list[Sample], spans: list[tuple[int, int]]
) -> _Evidence:
    """Return what each image says of the bands, which are first and last draws."""
    costs = np.zeros((len(samples), len(spans)))
    misses = np.zeros((len(samples), recording.n_draws))
    rivals, span = np.zeros(len(samples), dtype=np.int64), 0.0
    for row, sample in enumerate(samples):
        problem = recording.questions.of(sample).problem
        table = recording.errors(sample.sample_id).astype(np.float64)
        for errors in table.reshape(-1, len(problem.class_of_prompt), table.shape[1]):
            differences, largest = _rivals(errors, problem)
            span = max(span, largest)
            costs[row] += [
                _race_cost(differences[:, first : last + 1], recording.n_draws)
                for first, last in spans
            ]
            weighted, _ = _rivals(errors * problem.weights, problem)
            misses[row] += np.square(weighted - weighted.mean(axis=1, keepdims=True)).sum(axis=0)
            rivals[row] += len(weighted)
    return _Evidence(costs, misses, rivals, span)


def _deviation(recording: Recording, evidence: _Evidence, rows: Ints, params: RaceParams) -> float:
    """Return the root mean square, over images and rivals, of a difference on a race's first draw.

    Its mean over all N is subtracted, and one draw is taken among infinitely many.
    """
    strategy = decider_for(recording, learning("order").name, params).strategy
    request = strategy.start(recording.problem).ask()
    share = 1 - 1 / recording.n_draws
    if request is None or not share:
        return 0.0
    mean = evidence.misses[rows, request.draws[0]].sum() / evidence.rivals[rows].sum()
    return float(f"{np.sqrt(mean / share):.3g}")


def _rivals(errors: Floats, problem: Problem) -> tuple[Floats, float]:
    """Return float64 [C - 1, N], each other class's errors less the winner's, and the span.

    A class is its best prompt by the mean over all draws.
    """
    order = np.argsort(errors.mean(axis=1), kind="stable")
    _, first = np.unique(problem.class_of_prompt[order], return_index=True)
    best = errors[order[np.sort(first)]]
    span = float((errors.max(axis=0) - errors.min(axis=0)).max())
    return best[1:] - best[0], span


def _race_cost(differences: Floats, n_draws: int) -> float:
    """Return the expected evaluations of a race against rivals with these differences."""
    rivals, n = differences.shape
    if rivals == 0:
        return 0.0
    mean = differences.mean(axis=1)
    steps = np.diff(differences, axis=1) if n > 1 else differences
    variance = np.square(steps).mean(axis=1) / (2 if n > 1 else 1)
    needed = np.full(rivals, float(n_draws))
    right = mean > 0
    needed[right] = np.minimum(n_draws, Z**2 * variance[right] / mean[right] ** 2)
    needed = np.maximum(needed, 2)  # fewer have no variance
    return float(needed.sum() + needed.max())


def evaluations_per_image(records: Sequence[Record]) -> float:
    """Return the mean number of evaluations."""
    return float(np.mean([record["evaluations"] for record in records]))


def raced(
    recording: Recording, samples: Sequence[Sample], race: str, choices: Sequence[RaceParams]
) -> list[list[Record]]:
    """Return the records of some images under each choice of parameters of a race."""
    strategies = [decider_for(recording, race, params).strategy for params in choices]
    return replayed(recording, samples, strategies)


def learned_races(
    recording: Recording,
    samples: Sequence[Sample],
    race: str,
    chosen: Sequence[RaceParams],
    learned: Callable[[Ints], Sequence[RaceParams]],
) -> LearnedRaces:
    """Try learned parameters of a race, with 20 images or more on images not learned from.

    Args:
        recording: the recording.
        samples: its images.
        race: name of the strategy.
        chosen: choices of its parameters, as learned from all images; the first learned nothing.
        learned: returns these choices as learned from the images with some indices.
    """
    held_out = len(samples) >= MIN_HELD_OUT
    if held_out:
        fold_of = np.random.default_rng(0).permutation(len(samples)) % TRIAL_FOLDS
        by_row: dict[int, tuple[Record, ...]] = {}
        for fold in range(TRIAL_FOLDS):
            rows = np.flatnonzero(fold_of == fold).tolist()
            choices = learned(np.flatnonzero(fold_of != fold))
            records = raced(recording, [samples[row] for row in rows], race, choices)
            by_row |= zip(rows, zip(*records, strict=True), strict=True)
        tried = list(zip(*(by_row[row] for row in range(len(samples))), strict=True))
    else:
        tried = list(map(tuple, raced(recording, samples, race, chosen)))
    [full] = raced(recording, samples, exhaustive(), [{}])
    trials = order_trials(chosen, tried, full)
    return LearnedRaces(
        run_id=recording.manifest.run_id,
        n_samples=len(samples),
        held_out=held_out,
        trials=trials,
        recommended=recommended(trials) if held_out else None,
    )


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
