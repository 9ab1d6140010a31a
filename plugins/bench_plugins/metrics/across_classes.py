"""Metrics that rank images by the score of a class: area under the ROC curve, average precision.

Dimensions: [n] images, [C] classes.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.strategy import Floats


class _OneAgainstRest(Metric):
    """One-against-rest metric: rank all images by the score of each class, average over classes.

    Errors of two images are not comparable, because some images are hard for every class. So the
    score of a class is made relative to the image's other classes before images are ranked.

    Args:
        across: `difference` for the mean error of all classes minus the error of the class;
            `softmax` for the softmax of the negative errors over the classes.
        temperature: divisor of the errors in the softmax.
    """

    def __init__(
        self, across: Literal["difference", "softmax"] = "difference", temperature: float = 1.0
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.across, self.temperature = across, temperature

    def relative(self, scores: Floats) -> Floats:
        """Turn errors, float64 [n, C], into scores comparable across images; higher is better."""
        if self.across == "difference":
            return np.asarray(scores.mean(axis=1, keepdims=True) - scores)
        logits = -scores / self.temperature
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    @abstractmethod
    def of_class(self, positive: NDArray[np.bool_], score: Floats) -> Floats:
        """Return influence values of a class, float64 [n], whose mean is its metric.

        `positive`, bool [n], are the images of the class, and `score` [n] is higher for images that
        are more like it.
        """

    def influence(self, data: MetricInput) -> Floats:
        """Return the mean influence values of the classes that have some images but not all."""
        assert data.scores is not None
        masks = data.labels == np.arange(data.scores.shape[1])[:, None]
        columns = zip(masks, self.relative(data.scores).T, strict=True)
        rows = [self.of_class(*pair) for pair in columns if 0 < pair[0].sum() < len(data)]
        if not rows:
            raise ValueError("no class has images of it and images of other classes")
        return np.asarray(np.mean(rows, axis=0))

    def value(self, data: MetricInput) -> float:
        """Return the metric, which is the mean of the influence values."""
        return float(self.influence(data).mean())


class Auroc(_OneAgainstRest):
    """Area under the ROC curve, one class against the rest, mean over classes."""

    spec: ClassVar[dict[str, Any]] = {
        "name": "auroc",
        "words": "AUROC",
        "needs": ("scores",),
        "hub": ("roc_auc", "AUROC, macro, one against rest"),
        "hub_arguments": {"average": "macro", "multi_class": "ovr"},
    }

    def of_class(self, positive: NDArray[np.bool_], score: Floats) -> Floats:
        """Return values from structural components (DeLong et al., Biometrics 44, 1988).

        The component of a positive image is the share of negatives below it, and that of a negative
        image the share of positives above it. Ties count half.
        """
        from scipy.stats import rankdata

        n, count = len(score), int(positive.sum())
        ranks, component = rankdata(score), np.empty(n)
        component[positive] = (ranks[positive] - rankdata(score[positive])) / (n - count)
        above = ranks[~positive] - rankdata(score[~positive])
        component[~positive] = 1 - above / count
        area = component[positive].mean()
        scale = np.where(positive, n / count, n / (n - count))
        return np.asarray(area + scale * (component - area))


class AveragePrecision(_OneAgainstRest):
    """Average precision, one class against the rest, mean over classes."""

    spec: ClassVar[dict[str, Any]] = {"name": "average_precision", "needs": ("scores",)}

    def of_class(self, positive: NDArray[np.bool_], score: Floats) -> Floats:
        """Return the average precision plus its derivative in an image's weight.

        Let F_i be the number of images at or above positive image i, and T_i the number of positive
        ones among them. The metric is the mean of T_i / F_i over positive images. The derivative of
        this term in the weight of another image at or above i is -T_i / F_i², plus 1 / F_i if that
        image is positive.
        """
        order = np.argsort(-score, kind="stable")
        ordered, hit = score[order], positive[order].astype(np.float64)
        # The first and the last of the images that tie with each image.
        first = np.searchsorted(-ordered, -ordered, side="left")
        last = np.searchsorted(-ordered, -ordered, side="right") - 1
        above, hits = last + 1.0, np.cumsum(hit)[last]
        precision, count = hits / above, hit.sum()
        gained = _sums_from(first, hit / above)
        lost = _sums_from(first, hit * hits / above**2)
        value = float((hit * precision).sum() / count)
        slope = (hit * (precision - value) + hit * gained - lost) / count
        row = np.empty(len(score))
        row[order] = value + len(score) * slope
        return row


def _sums_from(first: NDArray[np.int64], terms: Floats) -> Floats:
    """Return, for each position in `first`, the sum of the terms from there to the end."""
    return np.asarray(np.cumsum(terms[::-1])[::-1][first])
