"""How often intervals have the true value, simulated.

    python benchmarks/coverage.py items [--runs 400]
    python benchmarks/coverage.py classes [--runs 5000]
    python benchmarks/coverage.py seeds [--runs 300]

*items*: the accuracy of a group of items, several of which are about one image. An image has 5
items, or 1 to 9 (*uneven*). All items of an image have one probability to be right, which is
drawn from a beta distribution for each image; *shared* is the correlation of two items about one
image, from 0 to 1. *Wilson*: the interval over items; *stored*: that of `mean_interval` over
images. *lowest*: how often the interval of the lowest of four such groups has the accuracy, which
is the same in all of them. Each is the smaller of the shares at accuracies of 0.5 and 0.9.

*classes*: averages over classes of equal size: the smallest share, over accuracies of 0.4, 0.6,
0.85 and 0.95 and over the share of errors that is drawn to one class (0, a half, all; others are
spread evenly), of intervals that have the value for all such images; in brackets the lower end of
the share's 95 % interval. Classes have accuracies of their own. *About the value*: without the
correction of `small_sample_bias`. A thousand classes of 100 images have 1,000 runs. The formulas
are those of the package for many runs at once; `tests/test_benchmarks.py` compares them with it.

*seeds*: a study of two methods with three seeds each, on classes of 8, 12, 20, 40 and 80 images, or
of 12 each. A is right on all images, and B wrong on an image of some classes (*the smallest*, *the
largest*, *all*) with a probability of 0.1 or 0.3; another seed of B is wrong where the first one is
(*equal*), in half of these cases (*half*), or as often anywhere (*independent*). *Cover*: the
smallest share of intervals that have the true difference, over the images and over images and
seeds. *Equal*: the largest share of studies that claim equality within the true difference, which
is false.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from bench.discovery.queries import metric_specs
from bench.stats.inference import class_metrics
from bench.stats.inference.class_metrics import ROUNDED, class_average, image_values
from bench.stats.inference.difference_tests import Answers, difference_test
from bench.stats.inference.paired import ALPHA, Z95
from bench.stats.inference.shares import (
    accuracy_interval,
    independent,
    lowest_interval,
    mean_interval,
    wilson,
)
from bench.stats.inference.variance import Over

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
OVERS: tuple[Over, Over] = ("images", "seeds")
AT_ONCE = 2_000_000  # images of runs in memory
AT_MOST = 100_000_000  # images of runs in all


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


@dataclass(frozen=True)
class Answered:
    """Answers of several runs to the same classes, of equally many images each."""

    own: Floats  # true accuracy of each class, [C]
    false: Floats  # expected false positives of each class, for one image of each class, [C]
    predictions: Ints  # [R, C, m]


@dataclass(frozen=True)
class Ratio:
    """A class ratio that is averaged; see `bench.contracts.metric_spec.ClassRatio`."""

    name: str
    hits: int
    support: int
    predicted: int
    weighted: bool = False


RATIOS = (
    Ratio("F1 macro", 2, 1, 1),
    Ratio("F1 weighted", 2, 1, 1, weighted=True),
    Ratio("precision macro", 1, 0, 1),
    Ratio("precision weighted", 1, 0, 1, weighted=True),
)
ACCURACIES, DRAWN = (0.4, 0.6, 0.85, 0.95), (0.0, 0.5, 1.0)


def answered(
    rng: np.random.Generator, own: Floats, images: int, drawn: float, runs: int
) -> Answered:
    """Return answers to `images` of each class, `drawn` of whose errors are for the first class."""
    classes = len(own)
    shape, label = (runs, classes, images), np.arange(classes)[None, :, None]
    other = rng.integers(0, classes - 1, shape)
    other += other >= label
    first = (rng.random(shape) < drawn) & (label > 0)
    wrong = np.where(first, 0, other)
    predictions = np.where(rng.random(shape) < own[None, :, None], label, wrong)
    spread = (1 - own) * np.where(np.arange(classes) > 0, 1 - drawn, 1.0)
    false = (spread.sum() - spread) / (classes - 1)
    false[0] += ((1 - own)[1:] * drawn).sum()
    return Answered(own, false, predictions)


def class_intervals(of: Answered, ratio: Ratio) -> tuple[float, Floats, Floats, Floats]:
    """Return the true value, and of each run the value, its bias and the reach of its interval."""
    runs, classes, images = of.predictions.shape
    right = of.predictions == np.arange(classes)[None, :, None]
    hits = right.sum(axis=2).astype(np.float64)
    run, true, _ = np.nonzero(~right)
    pairs, counts = np.unique(
        (run * classes + true) * classes + of.predictions[~right], return_counts=True
    )
    cell = pairs // classes**2 * classes + pairs % classes
    size, freedom = runs * classes, max(1, images - 1)
    false = np.bincount(cell, counts, size).reshape(runs, classes)
    of_false = np.bincount(cell, counts * (images - counts) / freedom, size).reshape(runs, classes)
    of_hits = hits * (images - hits) / freedom
    rest = ratio.support * images + ratio.predicted * false
    denominators = rest + ratio.predicted * hits
    denominators = np.where(denominators > 0, denominators, 1)
    ratios = ratio.hits * hits / denominators
    curved = ratio.predicted * hits * of_false - rest * of_hits
    bias = (ratio.hits * ratio.predicted * curved / denominators**3).mean(axis=1)
    scale = images / denominators
    influence = ratio.hits * right * scale[:, :, None]
    influence -= ratio.support * (scale * ratios)[:, :, None]
    taken = np.take_along_axis(scale * ratios, of.predictions.reshape(runs, -1), axis=1)
    influence -= ratio.predicted * taken.reshape(of.predictions.shape)
    value, n = ratios.mean(axis=1), classes * images
    if ratio.weighted:
        influence += ratios[:, :, None]
    means = influence.mean(axis=2)
    within = ((influence - means[:, :, None]) ** 2).sum(axis=2) / freedom * images
    between = images * ((means - means.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    variance = within.sum(axis=1) + between
    of_freedom = (within**2 / freedom).sum(axis=1) + between**2 / max(1, n - 1)
    certain = (of_freedom <= 0) | (variance < ROUNDED)
    quantile = stdtrit(variance**2 / np.where(certain, 1, of_freedom), 0.975)
    reach = np.where(certain, 0.0, quantile * np.sqrt(variance) / n)
    own = ratio.support + ratio.predicted * (of.own + of.false)
    return float(np.mean(ratio.hits * of.own / own)), value, bias, reach


def class_ends(value: Floats, bias: Floats, reach: Floats, n: int) -> tuple[Floats, Floats]:
    """Return the ends of the intervals about values less their bias, which contain the values."""
    centre = np.clip(value - bias, 0, 1)
    spread = np.where(reach > 0, reach, 1)
    effective = np.where(reach > 0, centre * (1 - centre) * (Z95 / spread) ** 2, n)
    effective = np.maximum(effective, 1e-9)
    low, high = wilson(centre * effective, effective)
    low, high = np.minimum(low, value), np.maximum(high, value)
    certain = (value <= 0) | (value >= 1)
    sure_low, sure_high = wilson(np.round(value) * n, np.full(len(value), n))
    return np.where(certain, sure_low, low), np.where(certain, sure_high, high)


def classes(runs: int) -> None:
    """Print a line for each number of classes and of images in each."""
    print(f"| classes × images | {' | '.join(f'{r.name} | about the value' for r in RATIOS)} |")
    print(f"| --- {'| --: | --: ' * len(RATIOS)}|")
    for count, images in product((2, 5, 20, 100, 1000), (1, 2, 5, 10, 20, 100)):
        most = min(runs, AT_MOST // (count * images))
        worst = np.ones((len(RATIOS), 2))
        for accuracy, drawn in product(ACCURACIES, DRAWN):
            held = covered_classes(count, images, accuracy, drawn, most)
            worst = np.minimum(worst, held)
        cells = [
            f"{100 * share:.1f} ({100 * accuracy_interval(share * most, most)[0]:.1f})"
            if column == 0
            else f"{100 * share:.1f}"
            for row in worst
            for column, share in enumerate(row)
        ]
        print(f"| {count:,} × {images} | {' | '.join(cells)} |", flush=True)


def covered_classes(
    count: int, images: int, accuracy: float, drawn: float, runs: int
) -> NDArray[np.float64]:
    """Return how often intervals have the true value, with and without correction, [ratios, 2]."""
    rng = np.random.default_rng([4, count, images, round(100 * accuracy), round(10 * drawn)])
    own = np.clip(rng.normal(accuracy, 0.4 * (1 - accuracy), count), 0.05, 0.995)
    held, left = np.zeros((len(RATIOS), 2)), runs
    while left:
        part = min(left, max(1, AT_ONCE // (count * images)))
        drawn_answers = answered(rng, own, images, drawn, part)
        for row, ratio in enumerate(RATIOS):
            truth, value, bias, reach = class_intervals(drawn_answers, ratio)
            for column, moved in enumerate((bias, 0 * bias)):
                low, high = class_ends(value, moved, reach, count * images)
                held[row, column] += ((low <= truth) & (truth <= high)).sum()
        left -= part
    return held / runs


SIZES = {"8 to 80": (8, 12, 20, 40, 80), "12 each": (12,) * 5}
WRONG = {"the smallest": (0,), "the largest": (4,), "all": (0, 1, 2, 3, 4)}
SEED_METRICS = ("balanced_accuracy", "f1_macro", "f1_weighted", "precision_macro", "accuracy")


def wrong_seeds(rng: np.random.Generator, odds: Floats, seeds: str) -> NDArray[np.bool_]:
    """Return where three seeds of a method are wrong, bool [3, n], each with probability `odds`."""
    first, others = rng.random(len(odds)) < odds, rng.random((3, len(odds))) < odds
    if seeds == "independent":
        return others
    wrong = np.tile(first, (3, 1))
    if seeds == "half":
        wrong[1:] = np.where(rng.random((2, len(odds))) < 0.5, first, others[1:])
    return wrong


def seeds(runs: int) -> None:
    """Print a line for each metric, sizes of classes, and dependence of seeds."""
    class_metrics.PERMUTATIONS = 499  # a study has 20,000; the level is the same
    print("| metric | images of a class | seeds | cover, images | seeds | equal, images | seeds |")
    print("| --- | --- | --- | --: | --: | --: | --: |")
    for (name, (words, sizes)), agree in product(
        product(SEED_METRICS, SIZES.items()), ("equal", "half", "independent")
    ):
        results = [
            covered_seeds(name, sizes, WRONG[where], odds, agree, runs)
            for where, odds in product(WRONG, (0.1, 0.3))
        ]
        held, claimed = zip(*results, strict=True)
        cells = [*np.min(held, axis=0), *np.max(claimed, axis=0)]
        shown = " | ".join(f"{100 * cell:.1f}" for cell in cells)
        print(f"| {name} | {words} | {agree} | {shown} |", flush=True)


def covered_seeds(
    name: str, sizes: Sequence[int], where: Sequence[int], odds: float, agree: str, runs: int
) -> tuple[Floats, Floats]:
    """Return how often intervals have the true difference, and equality is claimed, [2] each.

    The first is over images, the second over images and seeds.
    """
    spec, number = metric_specs()[name], [*metric_specs()].index(name)
    rng = np.random.default_rng([5, number, sizes[0], len(where), where[0], round(10 * odds)])
    labels = np.repeat(np.arange(len(sizes)), sizes)
    of_image = np.where(np.isin(labels, where), odds, 0.0)
    own = np.bincount(labels, of_image) / sizes
    counts = np.array(sizes, np.float64)
    hits = counts * (1 - own)
    predicted = hits + np.roll(counts - hits, 1)  # taken for the next class
    truth = class_average(spec, hits, counts, predicted) - 1
    held, claimed = np.zeros(2), np.zeros(2)
    right = labels[None, None].repeat(3, axis=0)
    for _ in range(runs):
        wrong = wrong_seeds(rng, of_image, agree)
        said = np.where(wrong, (labels + 1) % len(sizes), labels)[:, None]
        a, b = (
            Answers(
                who,
                predictions,
                np.stack([image_values(spec, labels, run[0])[None] for run in predictions]),
                "images" if spec.mean_over_images else "influence",
            )
            for who, predictions in (("A", right), ("B", said))
        )
        for place, over in enumerate(OVERS):
            tested = difference_test(spec, labels, a, b, abs(truth), over=over)
            low, high = tested.interval
            held[place] += low <= truth <= high
            claimed[place] += (tested.p_equal or 0.0) < ALPHA
    return held / runs, claimed / runs


def main() -> None:
    """Print one of the tables."""
    parts = {items: 400, classes: 5000, seeds: 300}
    names = {part.__name__: part for part in parts}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=names)
    parser.add_argument("--runs", type=int)
    chosen = parser.parse_args()
    part = names[chosen.part]
    part(chosen.runs or parts[part])


if __name__ == "__main__":
    main()
