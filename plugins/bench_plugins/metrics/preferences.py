"""Preferences between two alternatives: shape or texture, one set of classes or another."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.strategy import Floats


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
