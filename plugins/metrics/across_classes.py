"""Ranking of the images by the score of a class: area under the ROC curve, average precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.problem import Floats


class _OneAgainstRest(Metric):
    """A metric that ranks all images by the score of each class and is averaged over classes.

    Errors of two images do not compare: some images are hard for every class. So the score of a
    class is relative to the image's other classes before images are ranked.

    Args:
        across: difference: mean error of the image's classes less that of the class; softmax: the
            softmax of the negative errors over the classes.
        temperature: number by which errors are divided in the softmax.
    """

    def __init__(
        self, across: Literal["difference", "softmax"] = "difference", temperature: float = 1.0
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} is not above 0")
        self.across, self.temperature = across, temperature

    def relative(self, scores: Floats) -> Floats:
        """Return scores that compare across images, from errors; float64 [n, C], higher better."""
        if self.across == "difference":
            return np.asarray(scores.mean(axis=1, keepdims=True) - scores)
        logits = -scores / self.temperature
        likely = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(likely / likely.sum(axis=1, keepdims=True))

    def of_classes(self, data: MetricInput) -> Iterator[tuple[NDArray[np.bool_], Floats]]:
        """Yield whether each image is of a class, and its score, for classes with both kinds."""
        assert data.scores is not None
        columns = self.relative(data.scores).T
        for label, column in enumerate(columns):
            positive = data.labels == label
            if 0 < positive.sum() < len(positive):
                yield positive, column


class Auroc(_OneAgainstRest):
    """Area under the ROC curve, one class against the rest, mean over classes."""

    spec: ClassVar[dict[str, Any]] = {
        "name": "auroc",
        "words": "AUROC",
        "summary": "Area under the ROC curve, one class against the rest, mean over classes.",
        "needs": ("scores",),
        "hub": ("roc_auc", "AUROC, macro, one against rest"),
        "hub_arguments": {"average": "macro", "multi_class": "ovr"},
    }

    def value(self, data: MetricInput) -> float:
        """Return the mean of sklearn's area over the classes with images."""
        from sklearn.metrics import roc_auc_score

        return _mean([roc_auc_score(*pair) for pair in self.of_classes(data)])

    def influence(self, data: MetricInput) -> Floats:
        """Return the structural components (DeLong et al., Biometrics 44, 1988) as influence.

        The component of a positive image is the share of negatives below it, of a negative image
        that of positives above it; ties count half.
        """
        from scipy.stats import rankdata

        rows = []
        for positive, score in self.of_classes(data):
            n, count = len(score), int(positive.sum())
            ranks, component = rankdata(score), np.empty(n)
            component[positive] = (ranks[positive] - rankdata(score[positive])) / (n - count)
            above = ranks[~positive] - rankdata(score[~positive])
            component[~positive] = 1 - above / count
            area = component[positive].mean()
            share = np.where(positive, n / count, n / (n - count))
            rows.append(area + share * (component - area))
        return np.asarray(np.mean(rows, axis=0))


class AveragePrecision(_OneAgainstRest):
    """Average precision, one class against the rest, mean over classes."""

    spec: ClassVar[dict[str, Any]] = {
        "name": "average_precision",
        "summary": "Average precision, one class against the rest, mean over classes.",
        "needs": ("scores",),
    }

    def value(self, data: MetricInput) -> float:
        """Return the mean of sklearn's average precision over the classes with images."""
        from sklearn.metrics import average_precision_score

        return _mean([average_precision_score(*pair) for pair in self.of_classes(data)])

    def influence(self, data: MetricInput) -> Floats:
        """Return the derivative of the average precision in the weight of each image.

        With T_i positive and F_i of all images at or above positive image i, the metric is the mean
        of T_i / F_i over positives. Another image at or above i moves the term by -T_i / F_i^2, and
        a positive one by 1 / F_i beside.
        """
        rows = []
        for positive, score in self.of_classes(data):
            order = np.argsort(-score, kind="stable")
            ordered, hit = score[order], positive[order].astype(np.float64)
            last = np.searchsorted(-ordered, -ordered, side="right") - 1  # of each image's ties
            above, hits = last + 1.0, np.cumsum(hit)[last]
            precision, count = hits / above, hit.sum()
            first = np.searchsorted(-ordered, -ordered, side="left")
            gained, lost = (_from(hit / above, first), _from(hit * hits / above**2, first))
            value = float((hit * precision).sum() / count)
            slope = (hit * (precision - value) + hit * gained - lost) / count
            row = np.empty(len(score))
            row[order] = value + len(score) * slope
            rows.append(row)
        return np.asarray(np.mean(rows, axis=0))


def _from(terms: Floats, first: NDArray[np.int64]) -> Floats:
    """Return, for each place, the sum of the terms from there to the end."""
    return np.asarray(np.cumsum(terms[::-1])[::-1][first])


def _mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no class has images of it and images of other classes")
    return float(np.mean(values))
