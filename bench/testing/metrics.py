"""The contract of metrics, as tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.stats.checked import checked_value, metric_parts

N_IMAGES = 60


class MetricContract:
    """Tests of a metric; subclass it and define `make`.

    Attributes:
        mean_over_images: `mean_over_images` of the metric's spec.
        range: `range` of the metric's spec.
        columns: further labels that the metric reads, as name → labels of the test images, which
            are repeated to `N_IMAGES`. The classes are `class 0` to `class 3`.
    """

    mean_over_images = False
    range: tuple[float, float] = (0.0, 1.0)
    columns: ClassVar[Mapping[str, Sequence[str]]] = {}

    def make(self) -> Any:
        """Return the metric."""
        raise NotImplementedError

    @pytest.fixture
    def metric(self) -> Metric:
        """The metric, with default methods where it has none of its own."""
        from bench.discovery.targets import with_defaults

        made: Metric = with_defaults(self.make(), Metric)
        return made

    @pytest.fixture
    def data(self) -> MetricInput:
        """Random decisions on 60 images of four classes; one image failed."""
        rng = np.random.default_rng(0)
        labels = np.arange(N_IMAGES) % 4
        scores = rng.normal(size=(N_IMAGES, 4))
        scores[np.arange(N_IMAGES), labels] -= 1
        predictions = scores.argmin(axis=1)
        predictions[7] = -1
        return MetricInput(
            classes=tuple(f"class {label}" for label in range(4)),
            labels=labels,
            predictions=predictions,
            in_top5=np.ones(N_IMAGES, dtype=bool),
            in_candidates=rng.random(N_IMAGES) < 0.9,
            scores=scores,
            groups=np.array(["here", "there"])[labels % 2],
            columns={name: np.resize(np.array(v), N_IMAGES) for name, v in self.columns.items()},
            raters={"other": np.where(rng.random(N_IMAGES) < 0.8, labels, (labels + 1) % 4)},
        )

    @pytest.fixture
    def spec(self) -> MetricSpec:
        """What the attributes declare, as a registration."""
        mean, target = self.mean_over_images, f"{__name__}:Metric"
        return MetricSpec(name="tested", target=target, mean_over_images=mean, range=self.range)

    def test_a_value_is_in_its_range_whatever_the_order(
        self, spec: MetricSpec, metric: Metric, data: MetricInput
    ) -> None:
        """The value is within the range, and the same in a second call and in another order."""
        for part in (data, data.take(np.arange(20, dtype=np.int64))):
            checked_value(spec, metric, part)

    @pytest.mark.filterwarnings("error::bench.errors.BenchWarning")
    def test_values_of_images_give_the_metric_and_its_error(
        self, spec: MetricSpec, metric: Metric, data: MetricInput
    ) -> None:
        """The weighted mean of image values is the metric, with weights that are not negative.

        Influence values have about the standard error of a bootstrap.
        """
        metric_parts(spec, metric, data)
