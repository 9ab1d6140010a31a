"""Metrics that are no averages over classes of a ratio.

Some measure how a class's score ranks the images: area under the ROC curve, average precision.
Others measure decisions: among several true classes, between two alternatives, against raters.
Dimensions: [n] images, [C] classes.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bench.contracts.metric import NO_ANSWER, Metric, MetricInput
from bench.contracts.strategy import Bools, Floats, Ints


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
    def of_class(self, positive: Bools, score: Floats) -> Floats:
        """Return influence values of a class, float64 [n], whose mean is its metric.

        `positive`, bool [n], are the images of the class, and `score` [n] is higher for images that
        are more like it.
        """

    def influence(self, data: MetricInput) -> Floats:
        """Return the mean influence values of the classes that have some images but not all."""
        assert data.scores is not None
        masks = data.labels == np.arange(data.scores.shape[1])[:, None]  # bool [C, n]
        classes = zip(masks, self.relative(data.scores).T, strict=True)
        rows = [self.of_class(mask, score) for mask, score in classes if 0 < mask.sum() < len(data)]
        if not rows:
            raise ValueError("no class has images of it and images of other classes")
        return np.asarray(np.mean(rows, axis=0))

    def value(self, data: MetricInput) -> float:
        """Return the metric, which is the mean of the influence values."""
        return float(self.influence(data).mean())


class Auroc(_OneAgainstRest):
    """Area under the ROC curve, one class against the rest, mean over classes.

    >>> from bench.contracts.metric import MetricInput
    >>> labels, scores = np.array([0, 0, 1, 1]), np.array([[1, 2], [2.5, 2], [3, 2], [2, 2]])
    >>> data = MetricInput(("cat", "dog"), labels, scores.argmin(axis=1), scores=scores)
    >>> Auroc().value(data)
    0.75
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "auroc",
        "words": "AUROC",
        "needs": ("scores",),
        "hub": ("roc_auc", "AUROC, macro, one against rest"),
        "hub_arguments": {"average": "macro", "multi_class": "ovr"},
    }

    def of_class(self, positive: Bools, score: Floats) -> Floats:
        """Return values from structural components (DeLong et al., Biometrics 44, 1988).

        The component of a positive image is the share of negatives below it, and that of a negative
        image the share of positives above it. Ties count half. With the area A, the mean of the
        components of either side, the value is A + (component - A) / (share of the image's side).
        """
        from scipy.stats import rankdata

        n, n_positive = len(score), int(positive.sum())
        n_negative = n - n_positive
        # The rank among all minus that among one side counts the images of the other side below.
        ranks, component = rankdata(score), np.empty(n)
        component[positive] = (ranks[positive] - rankdata(score[positive])) / n_negative
        below = ranks[~positive] - rankdata(score[~positive])
        component[~positive] = 1 - below / n_positive
        area = component[positive].mean()
        scale = np.where(positive, n / n_positive, n / n_negative)
        return np.asarray(area + scale * (component - area))


class AveragePrecision(_OneAgainstRest):
    """Average precision, one class against the rest, mean over classes.

    >>> from bench.contracts.metric import MetricInput
    >>> labels, scores = np.array([0, 0, 1, 1]), np.array([[1, 2], [2.5, 2], [3, 2], [2, 2]])
    >>> data = MetricInput(("cat", "dog"), labels, scores.argmin(axis=1), scores=scores)
    >>> round(AveragePrecision().value(data), 3)
    0.833
    """

    spec: ClassVar[dict[str, Any]] = {"name": "average_precision", "needs": ("scores",)}

    def of_class(self, positive: Bools, score: Floats) -> Floats:
        """Return the average precision plus its derivative in an image's weight.

        Let F_i be the number of images at or above positive image i, and T_i the number of positive
        ones among them. The metric is the mean of T_i / F_i over positive images. The derivative of
        this term in the weight of another image at or above i is -T_i / F_i², plus 1 / F_i if that
        image is positive. A positive image also weighs its own term, against the mean.
        """
        order = np.argsort(-score, kind="stable")
        ordered, hit = score[order], positive[order].astype(np.float64)
        # The first and the last of the images that tie with each image.
        first = np.searchsorted(-ordered, -ordered, side="left")
        last = np.searchsorted(-ordered, -ordered, side="right") - 1
        above, hits = last + 1.0, np.cumsum(hit)[last]  # F and T
        precision, count = hits / above, hit.sum()
        gained = _sums_from(first, hit / above)
        lost = _sums_from(first, hit * hits / above**2)
        value = float((hit * precision).sum() / count)
        slope = (hit * (precision - value) + hit * gained - lost) / count
        influence = np.empty(len(score))
        influence[order] = value + len(score) * slope
        return influence


def _sums_from(first: Ints, terms: Floats) -> Floats:
    """Return, for each position in `first`, the sum of the terms from there to the end."""
    return np.asarray(np.cumsum(terms[::-1])[::-1][first])


CLASS_SEPARATOR = "|"  # between the true classes of one image


def _predicted(data: MetricInput) -> NDArray[np.str_]:
    """Return the name of each predicted class; "" for a failed image, whose prediction is -1."""
    return np.array([*data.classes, ""])[data.predictions]


class Top5Accuracy(Metric):
    """Share of images whose class is among the five best; None with five classes or fewer.

    >>> from bench.contracts.metric import MetricInput
    >>> labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    >>> data = MetricInput(("cat", "dog"), labels, predictions, in_top5=labels == 0)
    >>> Top5Accuracy().value(data)
    0.5
    """

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
    """Share of images with a true class among the candidates: the limit of their accuracy.

    >>> from bench.contracts.metric import MetricInput
    >>> labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    >>> data = MetricInput(("cat", "dog"), labels, predictions, in_candidates=labels == 0)
    >>> CandidateRecall().value(data)
    0.5
    """

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

    >>> from bench.contracts.metric import MetricInput
    >>> labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    >>> columns = {"classes": np.array(["cat", "cat|dog", "cat", ""])}
    >>> data = MetricInput(("cat", "dog"), labels, predictions, columns=columns)
    >>> round(MultiLabelAccuracy().value(data), 3)
    0.667

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
        right = [name in names for name, names in zip(_predicted(data), allowed, strict=True)]
        return np.asarray(right, dtype=np.float64)

    def image_weights(self, data: MetricInput) -> Floats:
        """Return 1 for an image with a true class, else 0."""
        return np.asarray(data.columns[self.columns[0]] != "", dtype=np.float64)


class _Preference(Metric):
    """Share of decisions for the first of two alternatives, among decisions for either."""

    @abstractmethod
    def preferred(self, data: MetricInput) -> tuple[Bools, Bools]:
        """Return two masks of the decisions [n]: for the first and for the second alternative."""

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for a decision for the first alternative, else 0."""
        return self.preferred(data)[0].astype(np.float64)

    def image_weights(self, data: MetricInput) -> Floats:
        """Return 1 for a decision for either alternative, else 0."""
        first, second = self.preferred(data)
        return (first | second).astype(np.float64)


class ShapeBias(_Preference):
    """Share of decisions for the shape among those for the shape or the texture of an image.

    >>> from bench.contracts.metric import MetricInput
    >>> labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    >>> shape = np.array(["cat", "cat", "dog", "dog"])
    >>> columns = {"shape": shape, "texture": np.array(["dog", "dog", "dog", "cat"])}
    >>> data = MetricInput(("cat", "dog"), labels, predictions, columns=columns)
    >>> round(ShapeBias().value(data), 3)
    0.667

    Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019. Images whose shape
    and texture have the same class, and decisions for a third class, are left out.

    Args:
        shape: further label with the class of the shape.
        texture: further label with the class of the texture.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "shape_bias",
        "needs": ("prediction", "columns"),
        "direction": "neither",
        "mean_over_images": True,
    }

    def __init__(self, shape: str = "shape", texture: str = "texture") -> None:
        if shape == texture:
            raise ValueError(f"shape and texture must be different columns, got {shape!r} twice")
        self.columns = (shape, texture)

    @override
    def preferred(self, data: MetricInput) -> tuple[Bools, Bools]:
        names = _predicted(data)
        shape, texture = (data.columns[name] for name in self.columns)
        counted = (names != "") & (shape != texture)
        return counted & (names == shape), counted & (names == texture)


class AssociationRate(_Preference):
    """Share of images decided for a first set of classes, among those decided for either set.

    >>> from bench.contracts.metric import MetricInput
    >>> answers = np.array([0, 1, 1, 2])
    >>> data = MetricInput(("cat", "dog", "cow"), answers, answers)
    >>> round(AssociationRate(first=("cat",), second=("dog",)).value(data), 3)
    0.333

    Radford et al. (2103.00020, section 7.1) report such rates for groups of people; `--by COLUMN`
    shows the rate of each group.

    Args:
        first: names of the classes of the first set.
        second: names of the classes of the second set; empty for all other classes.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "association_rate",
        "needs": ("prediction",),
        "direction": "neither",
        "on_request": True,
        "mean_over_images": True,
    }

    def __init__(self, first: tuple[str, ...] = (), second: tuple[str, ...] = ()) -> None:
        if both := sorted(set(first) & set(second)):
            raise ValueError(f"first and second must not overlap, got {both[0]!r} in both sets")
        self.first, self.second = first, second

    @override
    def preferred(self, data: MetricInput) -> tuple[Bools, Bools]:
        if not self.first:
            raise ValueError("name the classes of the first set: --set first=NAME,NAME")
        if unknown := [n for n in (*self.first, *self.second) if n not in data.classes]:
            raise ValueError(f"{unknown[0]!r} is not a class of the run")
        names = _predicted(data)
        first = np.isin(names, self.first)
        others = np.isin(names, self.second) if self.second else ~first & (names != "")
        return first, others


class ErrorConsistency(Metric):
    """Cohen's kappa of being right on the same images (Geirhos et al., NeurIPS 2020).

    >>> from bench.contracts.metric import MetricInput
    >>> labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    >>> raters = {"a person": np.array([0, 1, 1, 0])}
    >>> data = MetricInput(("cat", "dog"), labels, predictions, raters=raters)
    >>> ErrorConsistency().value(data)
    0.5

    Kappa is (same - chance) / (1 - chance), for the share of images on which both are right or both
    are wrong, and the share expected of two independent raters with these accuracies. With several
    raters, it is the mean of their kappas, each on the rater's images.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "error_consistency",
        "needs": ("prediction", "rater"),
        "range": (-1.0, 1.0),
        "unit": "number",
    }

    def value(self, data: MetricInput) -> float:
        """Return the mean of kappa over the raters for whom it is defined.

        It is undefined if the run and the rater are both right, or both wrong, on all images.
        """
        right = data.predictions == data.labels
        kappas = []
        for answers in data.raters.values():
            saw = answers != NO_ANSWER
            own, other = right[saw], (answers == data.labels)[saw]
            if not len(own):
                continue
            a, b, same = own.mean(), other.mean(), float((own == other).mean())
            chance = a * b + (1 - a) * (1 - b)
            if chance < 1:
                kappas.append((same - chance) / (1 - chance))
        if not kappas:
            raise ValueError("the run and each rater are right on all images, or wrong on all")
        return float(np.mean(kappas))
