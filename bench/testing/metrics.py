"""The contract of metrics, as tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.stats.checked import MAX_BIAS, influence_problem

N_IMAGES = 60
TOLERANCE = 1e-9


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

    def test_a_value_is_in_its_range(self, metric: Metric, data: MetricInput) -> None:
        """The value is within the range, for all images and for a part of them."""
        for part in (data, data.take(np.arange(20, dtype=np.int64))):
            assert self.range[0] <= float(metric.value(part)) <= self.range[1]

    def test_the_order_of_the_images_is_nothing(self, metric: Metric, data: MetricInput) -> None:
        """The value does not depend on the order of the images."""
        shuffled = data.take(np.random.default_rng(1).permutation(N_IMAGES))
        assert abs(metric.value(shuffled) - metric.value(data)) < TOLERANCE

    def test_a_second_call_gives_the_same(self, metric: Metric, data: MetricInput) -> None:
        """The value is that of the first call. The arrays are read-only, so none can change."""
        assert metric.value(data) == metric.value(data)

    def test_image_values_have_the_metric_as_their_mean(
        self, metric: Metric, data: MetricInput
    ) -> None:
        """The weighted mean of the image values is the metric; weights are not negative."""
        if not self.mean_over_images:
            pytest.skip("the metric is not a mean over images")
        values, weights = metric.image_values(data), metric.image_weights(data)
        assert np.shape(values) == np.shape(weights) == (N_IMAGES,)
        assert (weights >= 0).all() and (weights > 0).any()
        assert np.isfinite(values[weights > 0]).all()
        mean = np.average(np.where(weights > 0, values, 0), weights=weights)
        assert abs(float(mean) - metric.value(data)) < TOLERANCE

    def test_influence_values_give_the_standard_error(
        self, metric: Metric, data: MetricInput
    ) -> None:
        """If the metric has influence values, they give about the standard error of a bootstrap."""
        influence = metric.influence(data)
        if influence is None:
            pytest.skip("the metric has no influence values, so its intervals use a bootstrap")
        assert np.shape(influence) == (N_IMAGES,)
        error = float(np.std(influence)) / N_IMAGES**0.5
        assert abs(float(np.mean(influence)) - metric.value(data)) <= MAX_BIAS * error
        spec = MetricSpec(name="tested", target=f"{__name__}:Metric", range=self.range)
        assert influence_problem(spec, metric, data) is None
