"""The shipped metrics keep the contract of `bench.testing`; one that does not keep it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from bench.contracts.measuring import MetricInput
from bench.testing import MetricContract
from bench_plugins.metrics.across_classes import Auroc, AveragePrecision
from bench_plugins.metrics.membership import MultiLabelAccuracy
from bench_plugins.metrics.preferences import AssociationRate, ShapeBias
from bench_plugins.metrics.raters import ErrorConsistency


class TestAuroc(MetricContract):
    def make(self) -> Auroc:
        return Auroc()


class TestAveragePrecision(MetricContract):
    def make(self) -> AveragePrecision:
        return AveragePrecision(across="softmax")


class TestErrorConsistency(MetricContract):
    range = (-1.0, 1.0)

    def make(self) -> ErrorConsistency:
        return ErrorConsistency()


class TestAssociationRate(MetricContract):
    mean_over_images = True

    def make(self) -> AssociationRate:
        return AssociationRate(first=("class 0", "class 1"))


class TestMultiLabelAccuracy(MetricContract):
    mean_over_images = True
    columns: ClassVar[Mapping[str, Sequence[str]]] = {"classes": ("class 0|class 1", "", "class 2")}

    def make(self) -> MultiLabelAccuracy:
        return MultiLabelAccuracy()


class TestShapeBias(MetricContract):
    mean_over_images = True
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "shape": ("class 0", "class 1"),
        "texture": ("class 1", "class 2", "class 3"),
    }

    def make(self) -> ShapeBias:
        return ShapeBias()


class InOrder(MetricContract):
    """A metric that depends on the order of the images."""

    def make(self) -> Any:
        class First:
            def value(self, data: MetricInput) -> float:
                return float(data.labels @ np.arange(len(data))) / len(data) ** 3

        return First()


def test_a_metric_that_depends_on_the_order_fails() -> None:
    contract = InOrder()
    data = MetricContract.data.__wrapped__(contract)  # type: ignore[attr-defined]  # pytest's fixture
    metric = MetricContract.metric.__wrapped__(contract)  # type: ignore[attr-defined]  # likewise
    assert np.isfinite(metric.value(data))
    with pytest.raises(AssertionError):
        contract.test_the_order_of_the_images_is_nothing(metric, data)


class Overstated(MetricContract):
    """A metric whose influence values are too large."""

    def make(self) -> Any:
        class Thrice:
            def value(self, data: MetricInput) -> float:
                return float((data.predictions == data.labels).mean())

            def influence(self, data: MetricInput) -> Any:
                right = (data.predictions == data.labels).astype(float)
                return right.mean() + 3 * (right - right.mean())

        return Thrice()


def test_a_metric_with_another_standard_error_fails() -> None:
    contract = Overstated()
    data = MetricContract.data.__wrapped__(contract)  # type: ignore[attr-defined]  # pytest's fixture
    metric = MetricContract.metric.__wrapped__(contract)  # type: ignore[attr-defined]  # likewise
    with pytest.raises(AssertionError):
        contract.test_influence_values_give_the_standard_error(metric, data)
