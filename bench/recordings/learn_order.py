"""Learn from recorded errors which timesteps tell the classes apart in the fewest draws."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.contracts.dataset import Sample, asks_for_images
from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery.loading import learning_strategy
from bench.errors import UserError
from bench.recordings.recording import Recording, open_draws
from bench.recordings.replay import decider_for
from bench.recordings.trials import (
    LearnedRaces,
    RaceParams,
    compare_races,
    evaluations_per_image,
    image_errors,
    race_samples,
)
from bench.store.fields import Document

MAX_PARTS = 20  # maximum number of parts of the draws; Clark & Jaini learn as many weights
Z = 3.0  # standard errors at which a race is assumed to drop a rival


class PartCost(Document):
    """Estimated cost per image of a race on one part of the draws alone."""

    timesteps: str
    cost: float


class LearnedOrder(LearnedRaces):
    """An order of the draws that was learned from a recording."""

    order: str  # cheapest band of timesteps, in the form of the race's parameter `order`
    cost: float  # evaluations per image (or item) of a race in this order
    cost_even: float  # evaluations per image of a race in the even order
    deviation: float
    """Standard deviation of a difference on one draw: the race's `deviation` for this order."""
    deviation_even: float  # the same for the even order
    cost_with_deviation: float
    """Evaluations per image in this order, with `deviation` and a first bound after one draw."""
    cost_even_with_deviation: float  # the same in the even order, with `deviation_even`
    span: float  # largest difference between two weighted errors on the same draw
    parts: list[PartCost]


class _ImageStatistics(NamedTuple):
    """Statistics of n recorded images, one row per image, of their weighted errors.

    A rival is the best prompt of a class that does not win; its difference is its error minus that
    of the winner.
    """

    costs: Floats  # float64 [n, bands], estimated evaluations of a race on each band alone
    squares: Floats  # float64 [n, N], sum over rivals of (difference - its mean over draws)²
    rivals: Ints  # int64 [n], number of rivals
    span: float  # largest difference between two errors on the same draw, over all images


def learn_order(path: Path, limit: int | None = None) -> LearnedOrder:
    """Find the band of timesteps on which a race of the recorded images would have been cheapest.

    The draws are split into parts; a band is a range of adjacent parts. To tell a rival class from
    the exhaustive winner is estimated to take (Z s / m)² draws, between 2 and N, where m and s are
    mean and standard deviation of the differences between their weighted errors on the band; s is
    estimated from adjacent draws. If the band ranks the two in the wrong order, all N draws are
    counted. A race costs the draws of every rival, plus those of the winner, which are as many as
    for the most expensive rival. The band with the lowest mean cost is returned in the form of the
    race's parameter (order=650-850).

    The race evaluates the draws of the band first and the others afterwards, so the band does not
    change the weights of a score. But a prompt that is dropped on the band was judged on the band
    alone: if the band ranks prompts differently from all timesteps, winners are lost.

    The costs in this order and in the even one are measured by running the race on the recorded
    errors, like `bench replay`. Agreement with the full sweep is measured by cross-validation:
    order and deviation are learned from four fifths of the images and tried on the other fifth.
    With fewer than 20 images they are tried on the same images, and nothing is recommended.

    Learn from other images than those on which the order will be tested. `path` is the folder of a
    run with --strategy full --save-errors, `limit` a number of its images. Raises UserError if the
    run has no errors, or its items ask which image fits a text.
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
    samples, race = recording.subset(limit), learning_strategy("order").name
    statistics = _collect_statistics(recording, samples, spans)

    def learn(rows: Ints) -> list[RaceParams]:
        """Return the even order and the best band, then both with their deviations."""
        order = names[int(statistics.costs[rows].mean(axis=0).argmin())]
        plain: list[RaceParams] = [{}, {"order": order}]
        deviations = [_estimate_deviation(recording, statistics, rows, params) for params in plain]
        return plain + [
            {**params, "deviation": deviation, "first": 1} if deviation else params
            for params, deviation in zip(plain, deviations, strict=True)
        ]

    _, banded, even_first, banded_first = choices = learn(np.arange(len(samples)))
    costs = list(map(evaluations_per_image, race_samples(recording, samples, race, choices)))
    mean = statistics.costs.mean(axis=0)
    return LearnedOrder(
        order=str(banded["order"]),
        cost=costs[1],
        cost_even=costs[0],
        deviation=float(banded_first.get("deviation", 0.0)),
        deviation_even=float(even_first.get("deviation", 0.0)),
        cost_with_deviation=costs[3],
        cost_even_with_deviation=costs[2],
        span=statistics.span,
        parts=[
            PartCost(timesteps=name, cost=float(cost))
            for name, cost, (a, b) in zip(names, mean, bands, strict=True)
            if a == b
        ],
        **dict(compare_races(recording, samples, race, choices, learn)),
    )


def _collect_statistics(
    recording: Recording, samples: list[Sample], spans: list[tuple[int, int]]
) -> _ImageStatistics:
    """Compute the statistics of each sample. `spans` are the first and last draw of each band.

    For an item with several images, they are sums over its images.
    """
    costs = np.zeros((len(samples), len(spans)))
    squares = np.zeros((len(samples), recording.n_draws))
    rivals, span = np.zeros(len(samples), dtype=np.int64), 0.0
    for row, sample in enumerate(samples):
        for problem, errors in image_errors(recording, sample):
            differences, largest = _subtract_winner(errors * problem.weights, problem)
            span = max(span, largest)
            costs[row] += [
                _estimate_race_cost(differences[:, first : last + 1], recording.n_draws)
                for first, last in spans
            ]
            centred = differences - differences.mean(axis=1, keepdims=True)
            squares[row] += np.square(centred).sum(axis=0)
            rivals[row] += len(differences)
    return _ImageStatistics(costs, squares, rivals, span)


def _estimate_deviation(
    recording: Recording, statistics: _ImageStatistics, rows: Ints, params: RaceParams
) -> float:
    """Return the standard deviation of a difference on the first draw of a race.

    It is the root mean square over images and rivals of the difference minus its mean over all N
    draws, corrected for the finite number of draws; 0 if the race requests no draw, or if N is 1.
    """
    strategy = decider_for(recording, learning_strategy("order").name, params).strategy
    request = strategy.start(recording.problem).ask()
    correction = 1 - 1 / recording.n_draws
    if request is None or not correction:
        return 0.0
    mean = statistics.squares[rows, request.draws[0]].sum() / statistics.rivals[rows].sum()
    return float(f"{np.sqrt(mean / correction):.3g}")


def _subtract_winner(errors: Floats, problem: Problem) -> tuple[Floats, float]:
    """Return the differences of the rivals from the winner, float64 [C - 1, N], and the span.

    Each class is represented by its prompt with the lowest mean over all draws. The span is the
    largest difference between two prompts on a draw. `errors` are weighted, float64 [P, N].
    """
    order = np.argsort(errors.mean(axis=1), kind="stable")
    _, first = np.unique(problem.class_of_prompt[order], return_index=True)
    best = errors[order[np.sort(first)]]
    span = float((errors.max(axis=0) - errors.min(axis=0)).max())
    return best[1:] - best[0], span


def _estimate_race_cost(differences: Floats, n_draws: int) -> float:
    """Return the estimated evaluations of a race on a band's differences, float64 [C - 1, n]."""
    rivals, n = differences.shape
    if rivals == 0:
        return 0.0
    mean = differences.mean(axis=1)
    steps = np.diff(differences, axis=1) if n > 1 else differences
    variance = np.square(steps).mean(axis=1) / (2 if n > 1 else 1)
    needed = np.full(rivals, float(n_draws))
    behind = mean > 0  # ranked by the band as by all draws
    needed[behind] = np.minimum(n_draws, Z**2 * variance[behind] / mean[behind] ** 2)
    needed = np.maximum(needed, 2)  # a variance needs two draws
    return float(needed.sum() + needed.max())
