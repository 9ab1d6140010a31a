"""The shipped metrics keep the contract of `bench.testing`; one that does not keep it fails."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers.refusals import refused

from bench.contracts.measuring import MetricInput
from bench.errors import BenchWarning, PluginError
from bench.testing import MetricContract
from bench_plugins.metrics.measures import (
    AssociationRate,
    Auroc,
    AveragePrecision,
    ErrorConsistency,
    MultiLabelAccuracy,
    ShapeBias,
)


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


@pytest.mark.parametrize(
    ("contract", "problem"),
    [(InOrder(), "order"), (Overstated(), "bootstrap")],
    ids=lambda given: type(given).__name__,
)
def test_a_metric_that_does_not_keep_the_contract_fails(
    contract: MetricContract, problem: str
) -> None:
    data, metric, spec = (
        getattr(MetricContract, name).__wrapped__(contract) for name in ("data", "metric", "spec")
    )
    with refused(problem, kind=(PluginError, BenchWarning)), warnings.catch_warnings():
        warnings.simplefilter("error")
        contract.test_a_value_is_in_its_range_whatever_the_order(spec, metric, data)
        contract.test_values_of_images_give_the_metric_and_its_error(spec, metric, data)
