"""A metric of further labels: several true classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.problem import Floats

CLASS_SEPARATOR = "|"  # between the classes of one image


class MultiLabelAccuracy(Metric):
    """Share of images whose prediction is one of their true classes (Beyer et al., 2006.07159).

    Images without any true class are left out.

    Args:
        column: further label with the names of an image's true classes, separated by |.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "multilabel_accuracy",
        "words": "multi-label accuracy",
        "summary": "Share of images whose prediction is one of their true classes.",
        "needs": ("prediction", "columns"),
        "mean_over_images": True,
    }

    def __init__(self, column: str = "classes") -> None:
        self.columns = (column,)

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for an image whose prediction is among its classes, else 0."""
        names = set(data.classes)
        allowed = [
            {name.strip() for name in cell.split(CLASS_SEPARATOR)} - {""}
            for cell in data.columns[self.columns[0]].tolist()
        ]
        if strange := sorted(set().union(*allowed) - names):
            raise ValueError(f"{strange[0]!r} in column {self.columns[0]!r} is no class")
        decided = (data.classes[p] if p >= 0 else None for p in data.predictions)
        right = [name in classes for name, classes in zip(decided, allowed, strict=True)]
        return np.asarray(right, dtype=np.float64)

    def image_weights(self, data: MetricInput) -> Floats:
        """Return 1 for an image with a true class, else 0."""
        return np.asarray(data.columns[self.columns[0]] != "", dtype=np.float64)
