"""Learn from recorded errors which timesteps tell the classes apart in the fewest draws."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.contracts.dataset import Sample, asks_for_images
from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery.loading import learning
from bench.errors import UserError
from bench.recordings.recording import Recording, open_draws
from bench.recordings.replay import decider_for
from bench.recordings.trials import (
    LearnedRaces,
    RaceParams,
    evaluations_per_image,
    image_errors,
    learned_races,
    raced,
)
from bench.store.fields import Document

MAX_PARTS = 20  # parts of the draws, as many as Clark & Jaini learn weights for
Z = 3.0  # standard errors at which a race is assumed to drop a rival


class PartCost(Document):
    """Estimated cost per image of a race on one part of the draws alone."""

    timesteps: str
    cost: float


class LearnedOrder(LearnedRaces):
    """An order of the draws that was learned from a recording."""

    order: str  # band of timesteps, in the form of the race's parameter `order`
    cost: float  # evaluations per image (or item) of `race` in this order
    cost_even: float  # evaluations per image of `race` in the even order
    deviation: float
    """Standard deviation of a difference on one draw: the race's `deviation` for this order."""
    deviation_even: float  # the same for the even order
    cost_with_deviation: float
    """Evaluations per image in this order, with `deviation` and a first bound after one draw."""
    cost_even_with_deviation: float  # the same in the even order, with `deviation_even`
    span: float  # largest difference between two errors on the same draw
    parts: list[PartCost]


class _Evidence(NamedTuple):
    """Statistics of n recorded images, one row per image."""

    costs: Floats  # float64 [n, bands], estimated cost of a race on each band alone
    misses: Floats  # float64 [n, N], sum over rivals of (difference - its mean over draws)²
    rivals: Ints  # int64 [n], number of rivals
    span: float  # largest difference between two errors on the same draw


def learn_order(path: Path, limit: int | None = None) -> LearnedOrder:
    """Find the band of timesteps on which a race of the recorded images would have been cheapest.

    The draws are split into parts; a band is a range of adjacent parts. To tell a rival class from
    the exhaustive winner takes (Z s / m)² draws, where m and s are mean and standard deviation of
    their paired differences on the band, s estimated from adjacent draws. If the band ranks the two
    in the wrong order, all N draws are counted. A race costs the draws of every rival, plus those
    of the winner, which are as many as for the most expensive rival. The band with the lowest mean
    cost is returned in the form of the race's parameter (order=650-850).

    The race evaluates the draws of the band first and the others afterwards, so the score is not
    re-weighted. But a prompt that is dropped on the band was judged on the band alone: if the band
    ranks prompts differently from all levels, winners are lost.

    The costs in this order and in the even one are measured by running the race on the recorded
    errors, like `bench replay`. Agreement with the full sweep is measured by cross-validation:
    order and deviation are learned from four fifths of the images and tried on the other fifth.
    With fewer than 20 images they are tried on the same images, and nothing is recommended.

    Learn from other images than those on which the order will be tested. `path` is the folder of a
    run with --strategy full --save-errors, `limit` a number of its images.

    Raises:
        UserError: the run has no errors, or its items ask which image fits a text.
    """
    recording = open_draws(path)
    items = recording.manifest.items
    if items is not None and asks_for_images(items.images, items.texts):
        raise UserError(
            f"{recording.manifest.run_id} asks which image fits a text; an order is for a race"
            " among the texts of one image."
        )
    timesteps = recording.problem.timesteps
    parts = np.array_split(np.arange(len(timesteps)), min(MAX_PARTS, len(timesteps)))
    bands = [(a, b) for a in range(len(parts)) for b in range(a, len(parts))]
    spans = [(int(parts[a][0]), int(parts[b][-1])) for a, b in bands]
    names = [f"{timesteps[first]}-{timesteps[last]}" for first, last in spans]
    samples, race = recording.some(limit), learning("order").name
    evidence = _evidence(recording, samples, spans)

    def learn(rows: Ints) -> list[RaceParams]:
        """Return the even order and the learned one, then both with their deviations."""
        order = names[int(evidence.costs[rows].mean(axis=0).argmin())]
        plain: list[RaceParams] = [{}, {"order": order}]
        deviations = [_deviation(recording, evidence, rows, params) for params in plain]
        return plain + [
            {**params, "deviation": deviation, "first": 1} if deviation else params
            for params, deviation in zip(plain, deviations, strict=True)
        ]

    _, banded, even_known, banded_known = choices = learn(np.arange(len(samples)))
    costs = list(map(evaluations_per_image, raced(recording, samples, race, choices)))
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
        **dict(learned_races(recording, samples, race, choices, learn)),
    )


def _evidence(
    recording: Recording, samples: list[Sample], spans: list[tuple[int, int]]
) -> _Evidence:
    """Collect the statistics of each image. `spans` are the first and last draw of each band."""
    costs = np.zeros((len(samples), len(spans)))
    misses = np.zeros((len(samples), recording.n_draws))
    rivals, span = np.zeros(len(samples), dtype=np.int64), 0.0
    for row, sample in enumerate(samples):
        for problem, errors in image_errors(recording, sample):
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
    """Return the standard deviation of a difference on the first draw of a race.

    It is the root mean square over images and rivals of the difference minus its mean over all N
    draws, corrected for the finite number of draws. 0 if the race has no draw, or N is 1.
    """
    strategy = decider_for(recording, learning("order").name, params).strategy
    request = strategy.start(recording.problem).ask()
    share = 1 - 1 / recording.n_draws
    if request is None or not share:
        return 0.0
    mean = evidence.misses[rows, request.draws[0]].sum() / evidence.rivals[rows].sum()
    return float(f"{np.sqrt(mean / share):.3g}")


def _rivals(errors: Floats, problem: Problem) -> tuple[Floats, float]:
    """Return each other class's errors minus the winner's, float64 [C - 1, N], and the span.

    Each class is represented by its best prompt by the mean over all draws.
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
    needed = np.maximum(needed, 2)  # a variance needs two draws
    return float(needed.sum() + needed.max())
