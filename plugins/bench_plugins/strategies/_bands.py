"""Learn from recorded errors which timesteps a race should evaluate first, and their deviation.

The draws are split into parts; a band is a range of adjacent parts. A rival is the best prompt of a
class that does not win, and its difference is its weighted error minus that of the winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.contracts.strategy import Floats, Ints, Problem

MAX_PARTS = 20  # maximum number of parts of the draws; Clark & Jaini learn as many weights
Z = 3.0  # standard errors at which a race is assumed to drop a rival


class ImageStatistics(NamedTuple):
    """What is learned of one image with N draws."""

    timesteps: Ints  # int64 [N], ascending
    costs: Floats  # float64 [bands], estimated evaluations of a race on each band alone
    squares: Floats  # float64 [N], sum over rivals of (difference - its mean over draws)²
    rivals: int


def image_statistics(problem: Problem, errors: Floats) -> ImageStatistics:
    """Return the statistics of an image's errors, float64 [P, N]."""
    differences = _subtract_winner(errors * problem.weights, problem)
    n_draws, bands = len(problem.timesteps), bands_of(problem.timesteps)
    costs = [_estimate_race_cost(differences[:, band], n_draws) for band in bands]
    centred = differences - differences.mean(axis=1, keepdims=True)
    squares = np.square(centred).sum(axis=0)
    return ImageStatistics(problem.timesteps, np.array(costs), squares, len(differences))


def bands_of(timesteps: Ints) -> list[slice]:
    """Return the draws of each band."""
    parts = np.array_split(np.arange(len(timesteps)), min(MAX_PARTS, len(timesteps)))
    return [
        slice(int(first[0]), int(last[-1]) + 1)
        for start, first in enumerate(parts)
        for last in parts[start:]
    ]


def cheapest_band(statistics: Sequence[ImageStatistics]) -> str:
    """Return the band on which a race of these images would have been cheapest.

    To tell a rival from the exhaustive winner is estimated to take (Z s / m)² draws, between 2 and
    N, where m and s are mean and standard deviation of its differences on the band; s is estimated
    from adjacent draws. If the band ranks the two in the wrong order, all N draws are counted. A
    race costs the draws of every rival, plus those of the winner, which are as many as for the most
    expensive rival. The band has the form of the race's parameter, such as `650-850`.

    A race evaluates the draws of the band first and the others afterwards, so the band does not
    change the weights of a score. But a prompt that is dropped on the band was judged on the band
    alone: if the band ranks prompts differently from all timesteps, winners are lost.
    """
    timesteps, mean = (
        statistics[0].timesteps,
        np.mean([image.costs for image in statistics], axis=0),
    )
    draws = timesteps[bands_of(timesteps)[int(mean.argmin())]]
    return f"{draws[0]}-{draws[-1]}"


def deviation_of(statistics: Sequence[ImageStatistics], draw: int) -> float:
    """Return the standard deviation of a difference on a draw; 0 without rivals.

    It is the root mean square over images and rivals of the difference minus its mean over all N
    draws, corrected for the finite number of draws.
    """
    rivals = sum(image.rivals for image in statistics)
    total = sum(float(image.squares[draw]) for image in statistics)
    correction = 1 - 1 / len(statistics[0].timesteps)
    return float(f"{np.sqrt(total / rivals / correction):.3g}") if rivals and correction else 0.0


def _subtract_winner(errors: Floats, problem: Problem) -> Floats:
    """Return the differences of the rivals, float64 [C - 1, N], of weighted errors [P, N].

    Each class is represented by its prompt with the lowest mean over all draws.
    """
    order = np.argsort(errors.mean(axis=1), kind="stable")
    _, first = np.unique(problem.class_of_prompt[order], return_index=True)
    best = errors[order[np.sort(first)]]
    return np.asarray(best[1:] - best[0])


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
