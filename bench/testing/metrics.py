"""What every metric must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from bench.contracts.measuring import Metric, MetricInput

N_IMAGES = 60
LARGEST_DIFFERENCE = 1e-9


class MetricContract:
    """Subclass it, and say how your metric is made.

    Attributes:
        mean_over_images: whether its spec says so.
        range: the range of its spec.
        columns: name of a further label that it reads → the labels of the images that it is tested
            with, which are repeated; classes are `class 0` to `class 3`.
    """

    mean_over_images = False
    range: tuple[float, float] = (0.0, 1.0)
    columns: ClassVar[Mapping[str, Sequence[str]]] = {}

    def make(self) -> Any:
        """Return the metric."""
        raise NotImplementedError

    @pytest.fixture
    def metric(self) -> Metric:
        """The metric, with the defaults of the contract."""
        from bench.discovery.targets import with_defaults

        made: Metric = with_defaults(self.make(), Metric)
        return made

    @pytest.fixture
    def data(self) -> MetricInput:
        """Decisions on 60 images of four classes, one of which failed; half are right."""
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
        """The whole, and a part of the images."""
        for part in (data, data.take(np.arange(20, dtype=np.int64))):
            assert self.range[0] <= float(metric.value(part)) <= self.range[1]

    def test_the_order_of_the_images_is_nothing(self, metric: Metric, data: MetricInput) -> None:
        """Images are decided in any order."""
        shuffled = data.take(np.random.default_rng(1).permutation(N_IMAGES))
        assert abs(metric.value(shuffled) - metric.value(data)) < LARGEST_DIFFERENCE

    def test_the_input_stays_as_it_is(self, metric: Metric, data: MetricInput) -> None:
        """Other metrics read the same arrays."""
        before = data.take(np.arange(N_IMAGES))
        metric.value(data)
        assert np.array_equal(before.labels, data.labels)
        assert np.array_equal(before.predictions, data.predictions)
        assert np.array_equal(np.asarray(before.scores), np.asarray(data.scores))

    def test_image_values_have_the_metric_as_their_mean(
        self, metric: Metric, data: MetricInput
    ) -> None:
        """One finite value per image that counts, and weights that are not negative."""
        if not self.mean_over_images:
            pytest.skip("it is no mean over images")
        values, weights = metric.image_values(data), metric.image_weights(data)
        assert np.shape(values) == np.shape(weights) == (N_IMAGES,)
        assert (weights >= 0).all() and np.isfinite(values[weights > 0]).all()
        mean = np.average(np.where(weights > 0, values, 0), weights=weights)
        assert abs(float(mean) - metric.value(data)) < LARGEST_DIFFERENCE

    def test_influence_values_have_the_metric_as_their_mean(
        self, metric: Metric, data: MetricInput
    ) -> None:
        """One per image, where the metric has them."""
        influence = metric.influence(data)
        if influence is None:
            pytest.skip("it has none, so intervals are from a bootstrap")
        assert np.shape(influence) == (N_IMAGES,)
        assert abs(float(np.mean(influence)) - metric.value(data)) < 1e-6
