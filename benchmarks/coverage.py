"""How often intervals have the true value, simulated.

    python benchmarks/coverage.py items [--runs 400]

*items*: the accuracy of a group of items, several of which are about one image. An image has 5
items, or 1 to 9 (*uneven*). All items of an image have one probability to be right, which is
drawn from a beta distribution for each image; *shared* is the correlation of two items about one
image, from 0 to 1. *Wilson*: the interval over items; *stored*: that of `mean_interval` over
images. *lowest*: how often the interval of the lowest of four such groups has the accuracy, which
is the same in all of them. Each is the smaller of the shares at accuracies of 0.5 and 0.9.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bench.stats.inference.shares import (
    accuracy_interval,
    independent,
    lowest_interval,
    mean_interval,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def answers(
    rng: np.random.Generator, images: int, uneven: bool, accuracy: float, shared: float
) -> tuple[Floats, Ints]:
    """Return whether items are right, float64 [n], and the image that each is about, int64 [n]."""
    sizes = rng.integers(1, 10, images) if uneven else np.full(images, 5)
    about = np.repeat(np.arange(images), sizes)
    if shared == 0:
        odds = np.full(images, accuracy)
    elif shared == 1:
        odds = (rng.random(images) < accuracy).astype(np.float64)
    else:
        total = 1 / shared - 1
        odds = rng.beta(accuracy * total, (1 - accuracy) * total, images)
    return (rng.random(len(about)) < odds[about]).astype(np.float64), about


def items(runs: int) -> None:
    """Print a line for each number of images and of items about one; the smaller of two shares."""
    print("| images of a group | shared | Wilson | stored | lowest of four |")
    print("| --- | --: | --: | --: | --: |")
    for images, uneven, shared in product((5, 10, 20, 50), (False, True), (0.0, 0.3, 1.0)):
        held = [covered_items(images, uneven, shared, accuracy, runs) for accuracy in (0.5, 0.9)]
        shares = " | ".join(f"{100 * share:.1f} %" for share in np.min(held, axis=0))
        words = f"{images}, {'uneven' if uneven else '5 items each'}"
        print(f"| {words} | {shared} | {shares} |", flush=True)


def covered_items(
    images: int, uneven: bool, shared: float, accuracy: float, runs: int
) -> NDArray[np.float64]:
    """Return how often three intervals have the accuracy, float64 [3]."""
    rng = np.random.default_rng([3, images, uneven, round(100 * accuracy), round(10 * shared)])
    held = np.zeros(3)
    for _ in range(runs):
        groups = [answers(rng, images, uneven, accuracy, shared) for _ in range(4)]
        right, about = groups[0]
        sizes = np.array([independent(ids) for _, ids in groups])
        counts = sizes * [of_group.mean() for of_group, _ in groups]
        ends = (
            accuracy_interval(right.sum(), len(right)),
            mean_interval(right, about),
            lowest_interval(counts, sizes),
        )
        held += [low <= accuracy <= high for low, high in ends]
    return held / runs


def main() -> None:
    """Print one of the tables."""
    parts = {items: 400}
    names = {part.__name__: part for part in parts}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=names)
    parser.add_argument("--runs", type=int)
    chosen = parser.parse_args()
    part = names[chosen.part]
    part(chosen.runs or parts[part])


if __name__ == "__main__":
    main()
