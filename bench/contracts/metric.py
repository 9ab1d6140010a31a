"""The contract of metrics: the decisions that a metric reads, and what it returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Bools, Floats, Ints, make_read_only

NO_ANSWER = -2  # answer of a rater that was not shown the image; -1 is a failed image


@dataclass(frozen=True)
class MetricInput:
    """Decisions on n images. Fields that a metric's `needs` do not list may be None or empty.

    All arrays are read-only, because other metrics read them too.

    Attributes:
        classes: names of the C classes.
        labels: true classes, int64 [n].
        predictions: predicted classes, int64 [n]; -1 for an image that failed.
        in_top5: whether the true class is among the five best, bool [n].
        in_candidates: whether the true class was a candidate, bool [n].
        scores: mean error of each class on the same draws, float64 [n, C]; lower is better. Scores
            of different images are not comparable.
        groups: name of each image's group, str [n].
        columns: further labels by name, str [n] each; empty for an image without one.
        raters: answers of other raters by name, int64 [n] each; -2 for an image that was not shown
            to the rater.
        ranks: place of each item's best right answer among the wrong ones, int64 [n], from 1 on;
            0 for an item that failed. Answers that tie with it are ahead. Of a right answer that
            was eliminated, the last place that it may have.
        first_ranks: the same, but the first place that it may have; None if all places are known.
        answers: number of answers of each item, int64 [n]; None: as many as there are classes.
        clusters: number of the image that each item is about, int64 [n], if several are about the
            same one, which are resampled together; else None.
        items: whether labels and predictions are places in lists of the items' own texts or images,
            whose order says nothing, instead of classes.
    """

    classes: tuple[str, ...]
    labels: Ints
    predictions: Ints
    in_top5: Bools | None = None
    in_candidates: Bools | None = None
    scores: Floats | None = None
    groups: NDArray[np.str_] | None = None
    columns: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    raters: Mapping[str, Ints] = field(default_factory=dict)
    ranks: Ints | None = None
    first_ranks: Ints | None = None
    answers: Ints | None = None
    clusters: Ints | None = None
    items: bool = False

    def __post_init__(self) -> None:
        make_read_only(self)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Ints) -> Self:
        """Return the decisions on the images with these indices, int64; indices may repeat."""
        taken = {name: _take(values, rows) for name, values in vars(self).items()}
        return replace(self, **taken)


def _take(values: Any, rows: Ints) -> Any:
    if isinstance(values, Mapping):
        return {name: of_images[rows] for name, of_images in values.items()}
    return values[rows] if isinstance(values, np.ndarray) else values


class Metric:
    """A metric, constructed with the parameters of its spec.

    If the spec has `mean_over_images`, implement `image_values`, else `value`. Both may raise
    `ValueError`, with the reason, if the metric is undefined for the images. `columns` are the
    names of the further labels that it reads.
    """

    columns: tuple[str, ...] = ()

    def image_values(self, data: MetricInput) -> Floats:
        """Return the value of each image, float64 [n]."""
        raise NotImplementedError

    def image_weights(self, data: MetricInput) -> Floats:
        """Return the weight of each image in the mean, float64 [n]; 0 leaves an image out."""
        return np.ones(len(data))

    def value(self, data: MetricInput) -> float:
        """Return the metric. The default is the weighted mean of the images' values."""
        values, weights = self.image_values(data), self.image_weights(data)
        if not weights.sum() > 0:
            raise ValueError("all images have weight 0")
        return float(np.average(np.where(weights > 0, values, 0.0), weights=weights))

    def influence(self, data: MetricInput) -> Floats | None:
        """Return influence values of the images, float64 [n], or None to bootstrap over images.

        Each value is the metric plus its derivative with respect to the image's weight
        (infinitesimal jackknife; Efron, *The Jackknife, the Bootstrap and Other Resampling Plans*,
        1982); pseudo-values of the jackknife serve as well. Only their deviations from their mean
        are used, if the standard error that follows from them is near that of a bootstrap.
        """
        return None
