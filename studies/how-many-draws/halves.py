"""Independent halves of recorded draws, and what is measured on them. numpy alone.

The reference decides on one half of the draws. A method that uses draws of the other half has no
noise in common with it, so that its agreement is not inflated. The ceiling is the agreement of the
whole other half with the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.contracts.draw_order import sub_grid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Errors = NDArray[np.float32]

MARGIN = 0.01  # of agreement below the ceiling that counts as equal: one point
RESAMPLES = 2000  # of the images, for intervals


def split_draws(n_draws: int, split: int) -> tuple[Ints, Ints]:
    """Return the draws of two halves, int64 [N // 2] each, ascending.

    Draws 2k and 2k + 1 are neighbours in level, and one of them goes to each half: split 0 takes
    the even ones for the first half, and the others are random, seeded by their number. An odd last
    draw is in no half. ValueError: there are fewer than four draws.
    """
    if n_draws < 4:
        raise ValueError(f"{n_draws} draws make no two halves of at least two draws")
    pairs = np.arange(n_draws // 2)
    second = np.zeros(len(pairs), np.int64)
    if split:
        second = np.random.default_rng(split).integers(2, size=len(pairs))
    return 2 * pairs + second, 2 * pairs + 1 - second


def decide(errors: Errors, draws: Ints, class_of_prompt: Ints) -> Ints:
    """Return the class of each image, int64 [I]: the one whose best prompt has the least error.

    Args:
        errors: float32 [I, P, N].
        draws: indices of the draws that are used.
        class_of_prompt: int64 [P].
    """
    means = errors[:, :, draws].mean(axis=2, dtype=np.float64)
    return np.asarray(class_of_prompt[means.argmin(axis=1)])


def sizes(n_draws: int) -> list[int]:
    """Return the numbers of draws of a curve: powers of two, and all of them."""
    powers = [2**k for k in range(n_draws.bit_length()) if 2**k < n_draws]
    return [*powers, n_draws]


def directions(n_draws: int, splits: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield the draws of the reference and of the method: both ways of each split."""
    for split in range(splits):
        first, second = split_draws(n_draws, split)
        yield first, second
        yield second, first


@dataclass(frozen=True)
class Curve:
    """Agreement and accuracy by the number of draws per prompt.

    Attributes:
        draws: [n] numbers of draws.
        agreement: float64 [n, I], each image's share of directions that agree with the reference.
        correct: float64 [n, I], likewise right.
        shared: float64 [n, I], agreement with the decision of all draws, the same ones included.
        ceiling: float64 [I], agreement of two whole halves.
    """

    draws: list[int]
    agreement: Floats
    correct: Floats
    shared: Floats
    ceiling: Floats


def curve(errors: Errors, labels: Ints, class_of_prompt: Ints, splits: int) -> Curve:
    """Measure evenly spread draws of one half against the other half."""
    n_draws = errors.shape[2]
    numbers = sizes(n_draws // 2)
    whole = decide(errors, np.arange(n_draws), class_of_prompt)
    agreement, correct, shared = np.zeros((3, len(numbers), len(errors)))
    ceiling = np.zeros(len(errors))
    for reference, draws in directions(n_draws, splits):
        expected = decide(errors, reference, class_of_prompt)
        for place, number in enumerate(numbers):
            used = draws[sub_grid(number, len(draws))]
            decided = decide(errors, used, class_of_prompt)
            agreement[place] += decided == expected
            correct[place] += decided == labels
            shared[place] += decided == whole
        ceiling += decide(errors, draws, class_of_prompt) == expected
    count = 2 * splits
    return Curve(numbers, agreement / count, correct / count, shared / count, ceiling / count)


@dataclass(frozen=True)
class Least:
    """The least cost within a margin of the ceiling.

    Attributes:
        cost: the point estimate; None: no setting is that near.
        low, high: 95 % percentile interval over resampled images, on the settings that were tried;
            None: no setting is that near.
        shown: the least cost of a setting that is shown to be within the margin (lower limit of
            the paired difference, 95 %); None: of none.
    """

    cost: float | None
    low: float | None
    high: float | None
    shown: float | None


def least(costs: Floats, agreement: Floats, ceiling: Floats, margin: float = MARGIN) -> Least:
    """Return the least cost of a setting within `margin` of the ceiling.

    Args:
        costs: float64 [n].
        agreement: float64 [n, I], of each setting on each image.
        ceiling: float64 [I].
        margin: a share of the images.
    """
    order = np.argsort(costs, kind="stable")
    costs, difference = costs[order], (agreement - ceiling)[order]
    mean = difference.mean(axis=1)
    resampled = resampled_means(difference)
    every = np.where(resampled >= -margin, costs, np.inf).min(axis=1)
    low, high = (
        float(end) if np.isfinite(end) else None
        for end in np.quantile(every, [0.025, 0.975], method="nearest")
    )
    lowest = np.quantile(resampled, 0.025, axis=0)
    return Least(_first(costs, mean >= -margin), low, high, _first(costs, lowest >= -margin))


def _first(costs: Floats, true: NDArray[np.bool_]) -> float | None:
    return float(costs[true.argmax()]) if true.any() else None


def resampled_means(values: Floats) -> Floats:
    """Return the means of values [n, I] over images drawn with replacement, float64 [R, n]."""
    images = values.shape[1]
    rng = np.random.default_rng(0)
    counts = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    return np.asarray(counts @ values.T / images)


def interval(values: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean over images of values [I]."""
    low, high = np.quantile(resampled_means(values[None]), [0.025, 0.975])
    return float(low), float(high)


def noise_of_draws(errors: Errors, labels: Ints, class_of_prompt: Ints) -> dict[int, Floats]:
    """Return number of draws → accuracies with disjoint, evenly spread draws, what a seed does."""
    n_draws = errors.shape[2]
    return {
        number: np.array(
            [
                (decide(errors, np.arange(start, n_draws, step), class_of_prompt) == labels).mean()
                for start in range(step)
            ]
        )
        for number in sizes(n_draws // 2)
        if (step := n_draws // number) >= 2 and n_draws % number == 0
    }


def by_level(errors: Errors, labels: Ints, class_of_prompt: Ints, parts: int) -> list[Ints]:
    """Return the decisions by each of `parts` neighbouring groups of draws alone, int64 [I]."""
    groups = np.array_split(np.arange(errors.shape[2]), parts)
    return [decide(errors, draws, class_of_prompt) for draws in groups]


def single_draws(errors: Errors, labels: Ints, class_of_prompt: Ints) -> Floats:
    """Return the accuracy of each draw alone, float64 [N]."""
    best = class_of_prompt[errors.argmin(axis=1)]
    return np.asarray((best == labels[:, None]).mean(axis=0))


def consistency(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float | None:
    """Return the error consistency of two lists of right decisions (Geirhos et al., 2020).

    Cohen's kappa of being right; None where it is not defined: both are always, or never, right.
    """
    expected = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return None if expected == 1 else float(((a == b).mean() - expected) / (1 - expected))


def lost(
    right: NDArray[np.bool_], kept: NDArray[np.bool_], labels: Ints, names: list[str]
) -> Mapping[str, float]:
    """Return class → share of its right decisions that a method loses, the most first."""
    shares = {}
    for label, name in enumerate(names):
        mine = right & (labels == label)
        if mine.any():
            shares[name] = float((mine & ~kept).sum() / mine.sum())
    return dict(sorted(shares.items(), key=lambda pair: -pair[1]))
