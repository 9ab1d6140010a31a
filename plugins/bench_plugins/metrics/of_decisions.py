"""Metrics of decisions: among several true classes, between two alternatives, against raters."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bench.contracts.measuring import NO_ANSWER, Metric, MetricInput
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


class _Preference(Metric):
    """Share of decisions for the first of two alternatives, among decisions for either."""

    @abstractmethod
    def preferred(self, data: MetricInput) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
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
    def preferred(self, data: MetricInput) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        names = np.array([*data.classes, ""])[data.predictions]
        shape, texture = (data.columns[name] for name in self.columns)
        counted = (names != "") & (shape != texture)
        return counted & (names == shape), counted & (names == texture)


class AssociationRate(_Preference):
    """Share of images decided for a first set of classes, among those decided for either set.

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
    def preferred(self, data: MetricInput) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if not self.first:
            raise ValueError("name the classes of the first set: --set first=NAME,NAME")
        if unknown := [n for n in (*self.first, *self.second) if n not in data.classes]:
            raise ValueError(f"{unknown[0]!r} is not a class of the run")
        names = np.array([*data.classes, ""])[data.predictions]
        first = np.isin(names, self.first)
        others = np.isin(names, self.second) if self.second else ~first & (names != "")
        return first, others


class ErrorConsistency(Metric):
    """Cohen's kappa of being right on the same images (Geirhos et al., NeurIPS 2020).

    0 is expected of two independent raters with these accuracies; 1 means right and wrong on the
    same images. With several raters, it is the mean of their kappas, each on the rater's images.
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
            a, b = own.mean(), other.mean()
            chance = a * b + (1 - a) * (1 - b)
            if chance < 1:
                kappas.append((float((own == other).mean()) - chance) / (1 - chance))
        if not kappas:
            raise ValueError("the run and each rater are right on all images, or wrong on all")
        return float(np.mean(kappas))
