"""Sources of the spread of an accuracy: other images, another seed, another template.

The runs of one method are crossed: every seed with every template, on the same images. Intervals
are over other images for these seeds and templates, or over other images and other seeds. The
latter takes seeds and images for crossed random samples, as readers and cases are where several
readers judge the same cases, and has the variance of Obuchowski & Rockette (Communications in
Statistics 24, 1995). Templates are chosen by an author and are those of the study in both.

Throughout, `values` are float64 [seeds, templates, images], whether each image is right, or values
of each image whose mean is another metric; `clusters`, int64 [images], numbers the images that are
drawn together, and None draws each by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats, Ints
from bench.stats.paired import Z95
from bench.stats.shares import accuracy_interval
from bench.store.fields import Amount, Document, Number, Positive

OF_SHARES = (0.0, 1.0)  # range of most metrics
LEAST_SEEDS = 3  # with two, a difference must be 13 standard errors (`benchmarks/study_levels.py`)

Over = Literal["images", "seeds"]
"""Population of a study's tests and intervals; `seeds`: images and seeds."""


class Spread(Document):
    """The accuracy, or another metric, of one method over its runs, and its spread, as shares."""

    runs: Positive  # number of runs
    images: Positive  # number of images that all runs have
    clusters: Positive | None = None  # groups of images drawn together; None: each by itself
    seeds: Positive  # number of different seeds
    templates: Positive  # number of different templates
    accuracy: Number  # mean over the runs
    interval: tuple[Number, Number]
    """95 % interval over other images for these seeds and templates, or over other seeds too, as
    the study asks."""
    of_images: Amount  # standard deviation of one run's accuracy over other images
    of_seeds: Amount | None = None  # standard deviation over other seeds; None: one
    of_templates: Amount | None = None  # standard deviation over other templates; None: one


def are_answers(values: Floats) -> bool:
    """Tell whether values are of one run, each right or wrong."""
    return values.shape[:2] == (1, 1) and bool(((values == 0) | (values == 1)).all())


def spread(
    right: NDArray[np.bool_] | Floats,
    clusters: Ints | None = None,
    over: Over = "images",
    within: tuple[float, float] = OF_SHARES,
) -> Spread:
    """Return a method's accuracy and spread; with fewer than `LEAST_SEEDS` seeds, over images.

    `within` is the range of the metric: of one that is no share, the interval is symmetric.
    """
    values = np.asarray(right, dtype=np.float64)
    seeds, templates, n = values.shape
    by_run = values.mean(axis=2)
    return Spread(
        runs=seeds * templates,
        images=n,
        clusters=None if clusters is None else len(np.unique(clusters)),
        seeds=seeds,
        templates=templates,
        accuracy=float(values.mean()),
        interval=_interval(values, clusters, over, within),
        of_images=float(np.sqrt(_variances(values.reshape(-1, n), clusters).mean())),
        of_seeds=_deviation(by_run, axis=0) if seeds > 1 else None,
        of_templates=_deviation(by_run, axis=1) if templates > 1 else None,
    )


def image_error(values: Floats, clusters: Ints | None = None) -> float:
    """Return the standard error of the mean over images, for these seeds and templates."""
    return float(np.sqrt(_variances(values.mean(axis=(0, 1))[None], clusters)[0]))


@dataclass(frozen=True)
class SeedError:
    """The error of a mean over crossed images and seeds.

    Each part of the variance has its own Student quantile, as in the intervals of Graybill & Wang
    (JASA 75, 1980) for sums of variances. One quantile for both, with the degrees of freedom of
    Hillis (Statistics in Medicine 26, 2007), errs too often with fewer than eight seeds
    (`benchmarks/study_levels.py`).
    """

    of_seeds: float  # variance of the mean over other seeds
    of_images: float  # variance that other images add
    seeds: int
    units: int  # images, or clusters of them

    def reach(self, tail: float) -> float:
        """Return the deviation of the mean that has this one-sided probability, at most 0.5."""
        from scipy.special import stdtrit

        seeds, images = stdtrit([self.seeds - 1, max(1, self.units - 1)], tail)
        return float(np.hypot(seeds * np.sqrt(self.of_seeds), images * np.sqrt(self.of_images)))

    def tail(self, distance: float) -> float:
        """Return the one-sided probability of this deviation; above 0.5 for a negative one."""
        from scipy.optimize import brentq

        if distance <= 0:
            return 1 - self.tail(-distance) if distance else 0.5
        lowest, highest = -600.0, np.log(0.5)
        if self.reach(np.exp(lowest)) < distance:
            return 0.0
        return float(np.exp(brentq(lambda p: self.reach(np.exp(p)) - distance, lowest, highest)))


def seed_error(values: Floats, clusters: Ints | None = None) -> SeedError:
    """Return the error of the mean over images and two seeds or more.

    With S seeds crossed with n images, and the mean squares of seeds, images and the rest, its
    parts are MS_S / (S n) and max(MS_n - MS_rest, 0) / (S n); their sum is the variance of
    Obuchowski & Rockette.
    """
    by_seed = values.mean(axis=1)
    sums, sizes = unit_sums(by_seed, clusters)
    seeds, units = sums.shape
    table = (sums - by_seed.mean() * sizes) * (units / sizes.sum())
    rows, columns = table.mean(axis=1), table.mean(axis=0)  # the rows': the seeds' deviations
    rest = table - rows[:, None] - columns[None, :]
    of_seeds = units * float(rows @ rows) / (seeds - 1)
    of_images = seeds * float(columns @ columns) / max(1, units - 1)
    of_rest = float((rest**2).sum()) / ((seeds - 1) * max(1, units - 1))
    cells = seeds * units
    return SeedError(of_seeds / cells, max(of_images - of_rest, 0.0) / cells, seeds, units)


def unit_sums(values: Floats, clusters: Ints | None) -> tuple[Floats, Ints]:
    """Return each cluster's sum of values, [runs, images] → [runs, clusters], and its size."""
    if clusters is None:
        return values, np.ones(values.shape[1], dtype=np.int64)
    _, member = np.unique(clusters, return_inverse=True)
    return np.stack([np.bincount(member, weights=row) for row in values]), np.bincount(member)


def _variances(values: Floats, clusters: Ints | None) -> Floats:
    """Return the variance of each run's mean over other images, float64 [runs]."""
    sums, sizes = unit_sums(values, clusters)
    units = len(sizes)
    if units < 2:
        return np.zeros(len(values))
    off = sums - values.mean(axis=1, keepdims=True) * sizes
    return np.asarray((off**2).sum(axis=1) * units / (units - 1) / values.shape[1] ** 2)


def _deviation(by_run: Floats, axis: int) -> float:
    """Return the standard deviation along an axis, by the mean variance over the other one."""
    return float(np.sqrt(by_run.var(axis=axis, ddof=1).mean()))


def _interval(
    values: Floats, clusters: Ints | None, over: Over, within: tuple[float, float]
) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share with the variance of the mean, else z's."""
    n, mean, share = values.shape[2], float(values.mean()), within == OF_SHARES
    if share and ((clusters is None and are_answers(values)) or mean <= 0 or mean >= 1):
        return accuracy_interval(round(mean * n), n)
    if over == "seeds" and values.shape[0] >= LEAST_SEEDS:
        error = seed_error(values, clusters).reach(0.025) / Z95
    else:
        error = image_error(values, clusters)
    if not share:
        return max(within[0], mean - Z95 * error), min(within[1], mean + Z95 * error)
    effective = mean * (1 - mean) / error**2 if error > 0 else float(n)
    return accuracy_interval(mean * effective, effective)
