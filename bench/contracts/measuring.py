"""The contract of a metric: what it reads of the decisions, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.problem import Floats, Ints

NO_ANSWER = -2  # a rater's answer to an image that it did not see; -1 is a failed image


@dataclass(frozen=True)
class MetricInput:
    """Decisions on n images. What a spec does not name in `needs` may be None or empty.

    Attributes:
        classes: names of the C classes.
        labels: true classes, int64 [n].
        predictions: predicted classes, int64 [n]; -1: the image failed.
        in_top5: whether the true class is among the five best, bool [n].
        in_candidates: whether the true class was a candidate, bool [n].
        scores: mean error of each class on the same draws, float64 [n, C]; lower is better, and the
            errors of two images do not compare.
        groups: name of each image's group, str [n].
        columns: further labels by name, str [n] each; empty where an image has none.
        raters: answers of others by name, int64 [n] each; -2: the rater did not see the image.
    """

    classes: tuple[str, ...]
    labels: Ints
    predictions: Ints
    in_top5: NDArray[np.bool_] | None = None
    in_candidates: NDArray[np.bool_] | None = None
    scores: Floats | None = None
    groups: NDArray[np.str_] | None = None
    columns: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    raters: Mapping[str, Ints] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Ints) -> MetricInput:
        """Return the decisions on some images, which may be repeated; `rows` are int64."""
        parts: dict[str, Any] = {}
        for name, values in vars(self).items():
            if isinstance(values, np.ndarray):
                parts[name] = values[rows]
            elif isinstance(values, Mapping):
                parts[name] = {key: of_images[rows] for key, of_images in values.items()}
        return replace(self, **parts)


class Metric:
    """A metric, made as `Target(**parameters)` with the parameters of its spec.

    One whose spec says `mean_over_images` has `image_values`; any other has `value`. Either raises
    `ValueError`, with the reason, where the images do not define it.

    Attributes:
        columns: names of the further labels that it reads.
    """

    columns: tuple[str, ...] = ()

    def image_values(self, data: MetricInput) -> Floats:
        """Return the value of each image, float64 [n]."""
        raise NotImplementedError

    def image_weights(self, data: MetricInput) -> Floats:
        """Return the weight of each image in the mean, float64 [n]; 0 leaves it out."""
        return np.ones(len(data))

    def value(self, data: MetricInput) -> float:
        """Return the metric: of a mean over images, the weighted mean of their values."""
        values, weights = self.image_values(data), self.image_weights(data)
        if not weights.sum() > 0:
            raise ValueError("no image counts in it")
        return float(np.average(np.where(weights > 0, values, 0.0), weights=weights))

    def influence(self, data: MetricInput) -> Floats | None:
        """Return values of the images, float64 [n], or None for a bootstrap over images.

        Their mean is the metric, and each is the metric plus its derivative in the image's weight
        (the infinitesimal jackknife; Efron, The Jackknife, the Bootstrap and Other Resampling
        Plans, 1982).
        """
        return None
