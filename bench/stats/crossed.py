"""Where the spread of an accuracy comes from: other images, another seed, another template.

The runs of one method are crossed: every seed with every template, on the same images. A crossed
bootstrap (Owen, Annals of Applied Statistics 1, 2007) draws images, seeds and templates anew, each
by itself; images of one cluster are drawn together. Of few seeds it would find too little spread,
by the factor (S − 1) / S; deviations of the weights from 1 are stretched by its root.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.stats.shares import accuracy_interval, wilson
from bench.store.fields import Amount, Document, Number, Positive

RESAMPLES = 2000
FEW = 5  # seeds or templates below which an interval over them is rough

Floats = NDArray[np.float64]


class Spread(Document):
    """The accuracy of one method over its runs, and what moves it; shares, not points.

    Where it is of another metric, `accuracy` is that metric.
    """

    runs: Positive
    """How many."""
    images: Positive
    """That all runs have."""
    clusters: Positive | None = None
    """Groups of images that are drawn together; None: each image is drawn by itself."""
    seeds: Positive
    """Different ones."""
    templates: Positive
    """Different ones."""
    accuracy: Number
    """The mean over the runs."""
    interval: tuple[Number, Number]
    """95 %, over other images, and other seeds and templates where there are several."""
    of_images: Amount
    """The standard deviation of one run's accuracy over other images."""
    of_seeds: Amount | None = None
    """Over other seeds, on the same images; None: there is one."""
    of_templates: Amount | None = None
    """Over other templates, on the same images; None: there is one."""

    @property
    def in_words(self) -> str:
        """What moves the accuracy, and by how much."""
        moved = [("another seed", self.of_seeds), ("another template", self.of_templates)]
        parts = [f"{what} moves it by {100 * by:.1f}" for what, by in moved if by is not None]
        parts.append(f"other images by {100 * self.of_images:.1f}")
        first = (
            parts[0]
            .replace("moves it", "moves accuracy")
            .replace("other images by", "other images move accuracy by")
        )
        said = "; ".join([first, *parts[1:]]) + " points (one standard deviation)."
        return f"{said[0].upper()}{said[1:]}{self.condition}"

    @property
    def condition(self) -> str:
        """What the interval does not cover."""
        if self.seeds == 1:
            return " The interval is over images alone, for the noise of this one seed."
        few = [
            f"{count} {what}"
            for count, what in ((self.seeds, "seeds"), (self.templates, "templates"))
            if 1 < count < FEW
        ]
        return f" With {' and '.join(few)} the interval is rough." if few else ""


def are_answers(values: Floats) -> bool:
    """Tell whether values [seeds, templates, images] are of one run, each right or wrong."""
    return values.shape[:2] == (1, 1) and bool(((values == 0) | (values == 1)).all())


def spread(
    right: NDArray[np.bool_] | Floats, clusters: NDArray[np.int64] | None = None, seed: int = 0
) -> Spread:
    """Return the accuracy of a method over its runs, and what moves it.

    Args:
        right: [seeds, templates, images], whether each image is right; or values of each image
            whose mean is another metric.
        clusters: int64 [images], which images are drawn together; None: each by itself.
        seed: of the resampling.
    """
    values = np.asarray(right, dtype=np.float64)
    seeds, templates, n = values.shape
    by_run = values.mean(axis=2)
    groups = None if clusters is None else len(np.unique(clusters))
    mean = float(values.mean())
    return Spread(
        runs=seeds * templates,
        images=n,
        clusters=groups,
        seeds=seeds,
        templates=templates,
        accuracy=mean,
        interval=_interval(values, clusters, seed),
        of_images=_of_images(values.reshape(-1, n), clusters),
        of_seeds=_deviation(by_run, axis=0) if seeds > 1 else None,
        of_templates=_deviation(by_run, axis=1) if templates > 1 else None,
    )


def resampled_means(
    values: Floats, clusters: NDArray[np.int64] | None = None, seed: int = 0
) -> Floats:
    """Return float64 [RESAMPLES]: the mean over images, seeds and templates that are drawn anew.

    Images with the same values in all runs are counted and not drawn one by one, so that 200,000
    images take no longer than 200.

    Args:
        values: [seeds, templates, images].
        clusters: int64 [images], which images are drawn together; None: each by itself.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    seeds, templates, n = values.shape
    sums, sizes = _sums(values.reshape(-1, n), clusters)
    rows, counts = np.unique(np.column_stack([sizes, sums.T]), axis=0, return_counts=True)
    units = int(counts.sum())
    times = rng.multinomial(units, counts / units, size=RESAMPLES)
    drawn = (times @ rows[:, 1:]) / (times @ rows[:, :1])  # [RESAMPLES, seeds · templates]
    weights = (_weights(rng, seeds)[:, :, None] * _weights(rng, templates)[:, None, :]).reshape(
        RESAMPLES, -1
    )
    return np.asarray((drawn * weights).mean(axis=1))


def _weights(rng: np.random.Generator, count: int) -> Floats:
    """Return float64 [RESAMPLES, count]: how often each is drawn, stretched, with mean 1."""
    if count == 1:
        return np.ones((RESAMPLES, 1))
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return np.asarray(1 + (drawn - 1) * np.sqrt(count / (count - 1)))


def _sums(values: Floats, clusters: NDArray[np.int64] | None) -> tuple[Floats, NDArray[np.int64]]:
    """Return [runs, clusters], the sums of the values of each cluster, and the clusters' sizes."""
    if clusters is None:
        return values, np.ones(values.shape[1], dtype=np.int64)
    _, member = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(member)
    return np.stack([np.bincount(member, weights=row) for row in values]), sizes


def _of_images(values: Floats, clusters: NDArray[np.int64] | None) -> float:
    """Return the standard deviation of a run's mean over other images, by the mean variance."""
    sums, sizes = _sums(values, clusters)
    n, units = values.shape[1], len(sizes)
    if units < 2:
        return 0.0
    off = sums - values.mean(axis=1, keepdims=True) * sizes
    return float(np.sqrt((off**2).sum(axis=1).mean() * units / (units - 1)) / n)


def _deviation(by_run: Floats, axis: int) -> float:
    """Return the standard deviation along an axis, by the mean variance over the other one."""
    return float(np.sqrt(by_run.var(axis=axis, ddof=1).mean()))


def _interval(values: Floats, clusters: NDArray[np.int64] | None, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean: Wilson's, of as many images as its variance is worth.

    Of the answers of one run these are its own. Else the bootstrap's variance says it.
    """
    n, mean = values.shape[2], float(values.mean())
    if (clusters is None and are_answers(values)) or mean <= 0 or mean >= 1:
        return accuracy_interval(round(mean * n), n)
    variance = float(resampled_means(values, clusters, seed).var())
    worth = mean * (1 - mean) / variance if variance > 0 else float(n)
    low, high = wilson(np.array([mean * worth]), np.array([worth]))
    return float(low[0]), float(high[0])
