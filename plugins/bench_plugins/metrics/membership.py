"""Metrics of membership, such as whether the prediction is one of the true classes."""

from typing import Any, ClassVar

import numpy as np

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.strategy import Floats

CLASS_SEPARATOR = "|"  # between the true classes of one image


class Top5Accuracy(Metric):
    """Share of images whose class is among the five best; None with five classes or fewer."""

    spec: ClassVar[dict[str, Any]] = {
        "name": "top5_accuracy",
        "words": "top-5 accuracy",
        "needs": ("top5",),
        "mean_over_images": True,
        "hub": ("accuracy", "Top-5 accuracy"),
        "hub_arguments": {"top_k": 5},
    }

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for an image whose class is among its five best, else 0."""
        return np.asarray(data.in_top5, dtype=np.float64)


class CandidateRecall(Metric):
    """Share of images whose class was a candidate: the limit of the accuracy among candidates."""

    spec: ClassVar[dict[str, Any]] = {
        "name": "candidate_recall",
        "needs": ("candidates",),
        "mean_over_images": True,
    }

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for an image whose class was a candidate, else 0."""
        return np.asarray(data.in_candidates, dtype=np.float64)


class MultiLabelAccuracy(Metric):
    """Share of images whose prediction is one of their true classes (Beyer et al., 2006.07159).

    Images without any true class are left out.

    Args:
        column: further label with the names of an image's true classes, separated by |.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "multilabel_accuracy",
        "words": "multi-label accuracy",
        "needs": ("prediction", "columns"),
        "mean_over_images": True,
    }

    def __init__(self, column: str = "classes") -> None:
        self.columns = (column,)

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for an image whose prediction is one of its true classes, else 0."""
        cells = data.columns[self.columns[0]].tolist()
        allowed = [{name.strip() for name in cell.split(CLASS_SEPARATOR)} - {""} for cell in cells]
        if unknown := sorted(set().union(*allowed) - set(data.classes)):
            raise ValueError(f"{unknown[0]!r} in column {self.columns[0]!r} is not a class")
        predicted = (data.classes[p] if p >= 0 else None for p in data.predictions)
        right = [name in classes for name, classes in zip(predicted, allowed, strict=True)]
        return np.asarray(right, dtype=np.float64)

    def image_weights(self, data: MetricInput) -> Floats:
        """Return 1 for an image with a true class, else 0."""
        return np.asarray(data.columns[self.columns[0]] != "", dtype=np.float64)
