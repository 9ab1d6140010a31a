"""Whether the true class is among several: the five best, or the candidates of an image."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.problem import Floats


class Top5Accuracy(Metric):
    """Share of images whose class is among the five best."""

    spec: ClassVar[dict[str, Any]] = {
        "name": "top5_accuracy",
        "words": "top-5 accuracy",
        "summary": (
            "Share of images whose class is among the five best; None with five classes or fewer."
        ),
        "needs": ("top5",),
        "mean_over_images": True,
        "hub": ("accuracy", "Top-5 accuracy"),
        "hub_arguments": {"top_k": 5},
    }

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for an image whose class is among its five best, else 0."""
        return np.asarray(data.in_top5, dtype=np.float64)


class CandidateRecall(Metric):
    """Share of images whose class was a candidate."""

    spec: ClassVar[dict[str, Any]] = {
        "name": "candidate_recall",
        "summary": (
            "Of a run among candidates, the share of images whose class was a candidate: an upper"
            " limit of the accuracy."
        ),
        "needs": ("candidates",),
        "mean_over_images": True,
    }

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for an image whose class was a candidate, else 0."""
        return np.asarray(data.in_candidates, dtype=np.float64)
