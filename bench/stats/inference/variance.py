"""Variation of a metric over images, seeds and templates, and standard errors of its mean.

The runs of one method are crossed: every seed with every template, on the same images. Intervals
generalise to other images, or to other images and seeds. Seeds and images are then crossed random
effects, with the variance of Obuchowski & Rockette for readers and cases (Communications in
Statistics 24, 1995). Templates are chosen by an author, and are a fixed effect.

Throughout, `values` are float64 [seeds, templates, images], whose mean over images is the metric;
for the accuracy, 1 if a run is right and 0 otherwise. Images of a cluster are sampled together:
`clusters` are int64 [images], or None if images are independent.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.libraries import optimize, special
from bench.stats.inference.class_metrics import class_reach
from bench.stats.inference.paired import Z95
from bench.stats.inference.score import unit_sums
from bench.stats.inference.shares import accuracy_interval, mean_interval
from bench.store.formats.fields import Amount, Document, Number, Positive

UNIT_RANGE = (0.0, 1.0)
MIN_SEEDS = 3  # with two, a difference must be 13 standard errors (`benchmarks/study_levels.py`)
LOG_OF_ZERO = -600.0  # logarithm of a probability that counts as 0

Over = Literal["images", "seeds"]
"""What tests and intervals generalise to: other images, or (`seeds`) other images and seeds."""


class Spread(Document):
    """Mean accuracy, or mean of another metric, of one method over its runs, and its variation."""

    runs: Positive  # number of runs
    images: Positive  # number of images that all runs have
    clusters: Positive | None = None  # number of clusters; None if images are independent
    seeds: Positive  # number of different seeds
    templates: Positive  # number of different templates
    value: Number  # mean over the runs
    interval: tuple[Number, Number] | None
    """95 % interval over other images or, if the study asks for it, over other images and seeds.
    None for an average over classes with too few images for one (`interval_caveat`)."""
    of_images: Amount  # standard deviation of one run's value over samples of images
    of_seeds: Amount | None = None  # standard deviation over seeds; None with one seed
    of_templates: Amount | None = None  # standard deviation over templates; None with one template
    range_of_templates: tuple[Number, Number] | None = None  # lowest and highest; None with one


def are_answers(*values: Floats) -> bool:
    """Return whether each of the values is 0 or 1."""
    return all(((runs == 0) | (runs == 1)).all() for runs in values)


def spread(
    values: Bools | Floats,
    clusters: Ints | None = None,
    over: Over = "images",
    within: tuple[float, float] = UNIT_RANGE,
    images: int | None = None,
    influence: bool = False,
    classes: Ints | None = None,
    bias: float = 0.0,
) -> Spread:
    """Return the mean metric of a method and its variation.

    With fewer than MIN_SEEDS seeds, the interval is over images. If `within`, the range of the
    metric, is not [0, 1], it is symmetric and clipped. `images` is the number of images with a
    weight above 0; None: all. `influence` is whether values are influence values. `classes` are the
    true classes, int64 [n], if the metric averages over them. `bias` is by how much the
    metric is expected to exceed its value for all such images, which moves the interval.
    """
    values = np.asarray(values, dtype=np.float64)
    seeds, templates, n = values.shape
    by_run = values.mean(axis=2)
    by_template = by_run.mean(axis=0)
    ends = float(by_template.min()), float(by_template.max())
    return Spread(
        runs=seeds * templates,
        images=n,
        clusters=None if clusters is None else len(np.unique(clusters)),
        seeds=seeds,
        templates=templates,
        value=float(values.mean()),
        interval=_interval(values, clusters, over, within, images or n, influence, classes, bias),
        of_images=float(np.sqrt(_variances(values.reshape(-1, n), clusters).mean())),
        of_seeds=_deviation(by_run, axis=0) if seeds > 1 else None,
        of_templates=_deviation(by_run, axis=1) if templates > 1 else None,
        range_of_templates=ends if templates > 1 else None,
    )


def image_error(values: Floats, clusters: Ints | None = None) -> float:
    """Return the standard error of the mean over images, seeds and templates being fixed."""
    return float(np.sqrt(_variances(values.mean(axis=(0, 1))[None], clusters)[0]))


@dataclass(frozen=True)
class SeedError:
    """Sampling error of a mean over crossed images and seeds.

    Each variance component has its own Student quantile, as in the intervals of Graybill & Wang
    (JASA 75, 1980) for sums of variances. A common quantile with the degrees of freedom of Hillis
    (Statistics in Medicine 26, 2007) exceeds the nominal error rate with fewer than eight seeds
    (`benchmarks/study_levels.py`).
    """

    of_seeds: float  # variance component of seeds
    of_images: float  # variance component of images
    seeds: int  # number of seeds
    units: int  # number of images, or of clusters

    def reach(self, tail: float) -> float:
        """Return the deviation that the mean exceeds with probability `tail`, at most 0.5."""
        seeds, images = special.stdtrit([self.seeds - 1, max(1, self.units - 1)], tail)
        return float(np.hypot(seeds * np.sqrt(self.of_seeds), images * np.sqrt(self.of_images)))

    def tail(self, distance: float) -> float:
        """Return the one-sided probability that the mean deviates by more than `distance`."""
        if distance == 0:
            return 0.5
        if distance < 0:
            return 1 - self.tail(-distance)

        def excess(log_p: float) -> float:
            return self.reach(np.exp(log_p)) - distance

        if excess(LOG_OF_ZERO) < 0:
            return 0.0
        return float(np.exp(optimize.brentq(excess, LOG_OF_ZERO, np.log(0.5))))


def seed_error(values: Floats, clusters: Ints | None = None) -> SeedError:
    """Return the sampling error of the mean over images and at least two seeds.

    With S seeds crossed with n images, and the mean squares of seeds, images and residuals, the
    variance components are MS_S / (S n) and max(MS_n - MS_residual, 0) / (S n). Their sum is the
    variance of Obuchowski & Rockette.
    """
    by_seed = values.mean(axis=1)
    sums, sizes = unit_sums(by_seed, clusters)
    seeds, units = sums.shape
    deviations = (sums - by_seed.mean() * sizes) * (units / sizes.sum())  # [seeds, units]
    of_seed, of_unit = deviations.mean(axis=1), deviations.mean(axis=0)
    residuals = deviations - of_seed[:, None] - of_unit[None, :]
    ms_seeds = units * float(of_seed @ of_seed) / (seeds - 1)
    ms_images = seeds * float(of_unit @ of_unit) / max(1, units - 1)
    ms_residual = float((residuals**2).sum()) / ((seeds - 1) * max(1, units - 1))
    cells = seeds * units
    return SeedError(ms_seeds / cells, max(ms_images - ms_residual, 0.0) / cells, seeds, units)


def _variances(values: Floats, clusters: Ints | None) -> Floats:
    """Return the sampling variance of each run's mean over images; 0 for fewer than two units."""
    sums, sizes = unit_sums(values, clusters)
    units = len(sizes)
    if units < 2:
        return np.zeros(len(values))
    deviations = sums - values.mean(axis=1, keepdims=True) * sizes
    return np.asarray((deviations**2).sum(axis=1) * units / (units - 1) / values.shape[1] ** 2)


def _deviation(by_run: Floats, axis: int) -> float:
    """Return the standard deviation along `axis`, pooled over the other axis."""
    return float(np.sqrt(by_run.var(axis=axis, ddof=1).mean()))


def _interval(
    values: Floats,
    clusters: Ints | None,
    over: Over,
    within: tuple[float, float],
    n: int,
    influence: bool,
    classes: Ints | None,
    bias: float,
) -> tuple[float, float]:
    """Return the 95 % interval of the mean over `n` images with a weight above 0.

    Values of images in [0, 1] have the interval of a score test of their means over runs, which for
    a single run that is right or wrong is Wilson's. Influence values and other ranges have the
    interval `_by_reach`, by the variance over images or, with `classes`, within
    these, about the mean less its `bias`; they contain the mean. An interval over seeds contains
    the one over images.
    """
    mean, proportion = float(values.mean()), within == UNIT_RANGE
    if proportion and (mean <= 0 or mean >= 1):
        units = n if clusters is None else min(n, len(np.unique(clusters)))
        return accuracy_interval(round(mean) * units, units)
    if influence or not proportion:
        if classes is not None and clusters is None:
            reach = class_reach(values.mean(axis=(0, 1)), classes)
        else:
            reach = Z95 * image_error(values, clusters)
        low, high = _by_reach(min(max(mean - bias, within[0]), within[1]), reach, within, n)
        low, high = min(low, mean), max(high, mean)
    else:
        low, high = mean_interval(values.mean(axis=(0, 1)), clusters)
    if over == "seeds" and values.shape[0] >= MIN_SEEDS:
        reach = seed_error(values, clusters).reach(0.025)
        lower, higher = _by_reach(mean, reach, within, n)
        low, high = min(low, lower), max(high, higher)
    return low, high


def _by_reach(
    mean: float, reach: float, within: tuple[float, float], n: int
) -> tuple[float, float]:
    """Return the 95 % interval of a mean whose normal interval has the half-width `reach`.

    In [0, 1], it is Wilson's with the number of images that gives a share this half-width (`n` if
    it is 0); in other ranges, the normal one, clipped to `within`.
    """
    if within != UNIT_RANGE:
        return max(within[0], mean - reach), min(within[1], mean + reach)
    effective = mean * (1 - mean) * (Z95 / reach) ** 2 if reach > 0 else float(n)
    return accuracy_interval(mean * effective, effective)
