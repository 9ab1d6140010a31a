"""Registered metrics of decided images: value, confidence interval, and difference of two runs.

Intervals and tests of a mean over images use the images' values. Other metrics use influence
values, whose mean is the metric, or, if they declare none, a bootstrap over images (and over
raters, if there are several).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Floats
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import make, with_defaults
from bench.errors import PluginError, UserError
from bench.stats.class_metrics import class_average, class_counts, image_values
from bench.stats.crossed import spread
from bench.stats.difference_tests import Answers, Method, difference_test
from bench.stats.paired import ALPHA, Difference
from bench.store.fields import Document, Number, Positive

REAL = "biuf"  # kinds of numpy's dtypes of real numbers
MEAN_TOLERANCE = 1e-6  # of the mean of the images' values, relative to a metric above 1
METRIC_RESAMPLES = 2_000  # bootstrap samples; a 95 % interval cuts off 50 on each side


class MeasuredMetric(Document):
    """Value of a registered metric for a run, with its interval."""

    metric: str  # registered name
    words: str  # name in sentences
    value: Number
    ci95: tuple[Number, Number]
    interval: Method
    """Method of the interval: the images' values, influence values, or a bootstrap over images
    (and over raters, if there are several)."""
    images: Positive  # number of images with a weight above 0
    raters: dict[str, Number] | None = None  # value for each rater; None if there are none or one
    parameters: Parameters = Field({})  # parameters that were set explicitly


class MetricDifference(Document):
    """Test of a metric, for two runs on the same images."""

    metric: str  # name of the metric
    a: Number  # value of A
    b: Number  # value of B
    difference: Difference  # B minus A


class ByClass(Metric):
    """Implementation of a metric that is declared by a class ratio."""

    def __init__(self, spec: MetricSpec) -> None:
        self._spec = spec

    def value(self, data: MetricInput) -> float:
        """Return the average over classes."""
        counts = class_counts(data.labels, data.predictions, len(data.classes))
        return class_average(self._spec, *counts)

    def influence(self, data: MetricInput) -> Floats:
        """Return the value of each image, float64 [n], whose mean is the metric."""
        return image_values(self._spec, data.labels, data.predictions)

    image_values = influence


def make_metric(spec: MetricSpec, parameters: Mapping[str, Any] | None = None) -> Metric:
    """Return an instance of a registered metric; parameters that are not set have their defaults.

    Raises UserError for an unknown or invalid parameter, PluginError if the constructor failed.
    """
    values = spec.resolve_parameters(parameters or {})
    if spec.ratio is not None:
        return ByClass(spec)
    try:
        made = make(spec, passing=(ValueError,), **values)
    except ValueError as error:
        raise UserError(f"{spec.label}: {one_line(error)}.") from None
    metric: Metric = with_defaults(made, Metric)
    with guard(spec.label, "reading its columns"):
        if not all(isinstance(name, str) for name in metric.columns):
            raise PluginError(spec.label, "its columns must be names")
    return metric


def metric_value(spec: MetricSpec, metric: Metric, data: MetricInput) -> float:
    """Return the value of a metric for decided images.

    Raises UserError if it is undefined for these images, and PluginError if the metric failed or
    its value is not a number in its declared range.
    """
    if spec.mean_over_images:
        _image_values(spec, metric, data)  # `value` uses them, and would hide what is wrong
    (low, high), returned = spec.range, _called(spec, metric, "value", data)
    value = float(_numbers(spec, "value", returned, ()))
    if not low - 1e-9 <= value <= high + 1e-9:
        raise PluginError(spec.label, f"value() must be between {low:g} and {high:g}, got {value}")
    return min(max(value, low), high)


def summary_value(spec: MetricSpec, data: MetricInput) -> float | None:
    """Return a metric of a copy of the data, which others read too; None if it is undefined.

    Raises UserError or PluginError if the metric cannot be made, fails or has an invalid value.
    """
    metric = make_metric(spec)
    with suppress(UserError):
        return metric_value(spec, metric, data.take(np.arange(len(data))))
    return None


def measure(
    spec: MetricSpec, metric: Metric, data: MetricInput, parameters: Mapping[str, Any]
) -> MeasuredMetric:
    """Return a metric of decided images with its 95 % interval.

    Raises as `metric_value`, and a UserError if there are too few images for a bootstrap.
    """
    value, (values, method) = metric_value(spec, metric, data), image_parts(spec, metric, data)
    images = len(data)
    if values is None:
        ends, _ = _bootstrap(spec, metric, (data,))
    else:
        ends = spread(values[None, None], within=spec.range).interval
    if spec.mean_over_images:
        images = int((_image_values(spec, metric, data)[1] > 0).sum())
    of_raters = None
    if len(data.raters) > 1:
        of_raters = {
            name: metric_value(spec, metric, replace(data, raters={name: answers}))
            for name, answers in data.raters.items()
        }
    return MeasuredMetric(
        metric=spec.name,
        words=spec.words,
        value=value,
        ci95=ends,
        interval=method,
        images=images,
        parameters=dict(parameters),
        **({"raters": of_raters} if of_raters else {}),
    )


def image_parts(
    spec: MetricSpec, metric: Metric, data: MetricInput
) -> tuple[Floats | None, Method]:
    """Return values of the images whose mean is the metric, float64 [n], and their method.

    The values of a weighted mean are its influence values. They are None, with the method
    "bootstrap", if the metric is no mean over images and declares no influence values. Raises
    UserError if no image has a weight above 0 or the metric rejects the images, PluginError if the
    metric failed, its values are not n finite numbers, or their mean is not the metric.
    """
    values, method = _parts(spec, metric, data)
    if values is not None:
        mean, value = values.mean(), metric_value(spec, metric, data)
        if not abs(mean - value) <= MEAN_TOLERANCE * max(1.0, abs(value)):
            raise PluginError(
                spec.label, f"the mean of its {method} values is {mean:g}, not {value:g}"
            )
    return values, method


def _parts(spec: MetricSpec, metric: Metric, data: MetricInput) -> tuple[Floats | None, Method]:
    if not spec.mean_over_images:
        returned = _called(spec, metric, "influence", data)
        if returned is None:
            return None, "bootstrap"
        return _numbers(spec, "influence", returned, (len(data),)), "influence"
    values, weights = _image_values(spec, metric, data)
    if (weights == 1).all():
        return values, "images"
    if not weights.sum() > 0:
        raise UserError(f"{spec.label}: no image has a weight above 0.")
    values = np.where(weights > 0, values, 0.0)
    mean = np.average(values, weights=weights)
    return np.asarray(mean + weights / weights.mean() * (values - mean)), "influence"


def measured_difference(
    spec: MetricSpec, metric: Metric, a: MetricInput, b: MetricInput
) -> MetricDifference:
    """Test the difference of two runs in a metric, B minus A, on the same images in the same order.

    The test is `difference_test`, or a paired bootstrap if the metric has no image values.
    """
    values = [metric_value(spec, metric, data) for data in (a, b)]
    of_a, of_b = (_answers(spec, metric, data) for data in (a, b))
    if of_a is not None and of_b is not None:
        tested = difference_test(spec, a.labels, of_a, of_b)
    else:
        ends, p = _bootstrap(spec, metric, (a, b))
        tested = Difference(
            estimate=values[1] - values[0],
            interval=ends,
            p=p,
            level=ALPHA,
            method="bootstrap",
            n=len(a),
        )
    return MetricDifference(metric=spec.name, a=values[0], b=values[1], difference=tested)


def _answers(spec: MetricSpec, metric: Metric, data: MetricInput) -> Answers | None:
    values, method = image_parts(spec, metric, data)
    if values is None:
        return None
    return Answers("", data.predictions[None, None], values[None, None], method)


def by_group(
    spec: MetricSpec, metric: Metric, data: MetricInput, names: NDArray[np.str_]
) -> Iterator[tuple[str, MeasuredMetric | str]]:
    """Yield each group's name with its metric, or with the reason why the metric is undefined.

    `names` are the group of each image; an image with an empty name is in no group.
    """
    for name in sorted(set(names.tolist()) - {""}):
        part = data.take(np.flatnonzero(names == name))
        try:
            yield name, measure(spec, metric, part, {})
        except UserError as error:
            yield name, str(error)


def _bootstrap(
    spec: MetricSpec, metric: Metric, runs: tuple[MetricInput, ...]
) -> tuple[tuple[float, float], float]:
    """Return the 95 % percentile interval of a metric, and the two-sided p-value of 0.

    For two runs, they are those of the second value minus the first, on the same bootstrap samples.
    Samples for which the metric is undefined are left out; a UserError if these are more than half.
    """
    estimates = []
    for samples in zip(*map(_resampled, runs), strict=True):
        with suppress(UserError):
            values = [metric_value(spec, metric, sample) for sample in samples]
            estimates.append(values[-1] - (values[0] if len(values) > 1 else 0.0))
    if len(estimates) < METRIC_RESAMPLES // 2:
        raise UserError(f"{spec.label}: too few images for a bootstrap.")
    ordered, tail = np.sort(estimates), len(estimates) // 40
    fewer = min(int((ordered <= 0).sum()), int((ordered >= 0).sum()))
    p = min(1.0, 2 * (1 + fewer) / (1 + len(estimates)))
    return (float(ordered[tail]), float(ordered[-1 - tail])), p


def _resampled(data: MetricInput) -> Iterator[MetricInput]:
    """Yield bootstrap samples of images and raters, with the same images for every run."""
    rng, n, names = np.random.default_rng(0), len(data), list(data.raters)
    for _ in range(METRIC_RESAMPLES):
        part = data.take(rng.integers(n, size=n))
        if len(names) > 1:
            chosen = rng.integers(len(names), size=len(names))
            raters = {str(place): part.raters[names[c]] for place, c in enumerate(chosen)}
            part = replace(part, raters=raters)
        yield part


def _image_values(spec: MetricSpec, metric: Metric, data: MetricInput) -> tuple[Floats, Floats]:
    """Return the values of the images and their weights, float64 [n]; PluginError if invalid."""
    values, weights = (
        _numbers(spec, name, _called(spec, metric, name, data), (len(data),))
        for name in ("image_values", "image_weights")
    )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise PluginError(spec.label, "image_weights() must be finite and not negative")
    if not np.isfinite(values[weights > 0]).all():
        raise PluginError(spec.label, f"image_values() must be {len(data)} finite numbers")
    return values, weights


def _numbers(spec: MetricSpec, method: str, returned: object, shape: tuple[int, ...]) -> Floats:
    """Return what a method returned, float64; PluginError for another shape or kind."""
    with guard(spec.label, f"{method}()"):
        values = np.asarray(returned)
    if values.shape != shape or values.dtype.kind not in REAL:
        wanted = f"{shape[0]} finite numbers" if shape else "a number"
        raise PluginError(spec.label, f"{method}() must be {wanted}, got {one_line(returned)}")
    return values.astype(np.float64)


def _called(spec: MetricSpec, metric: Metric, method: str, data: MetricInput) -> Any:
    """Call a method of a metric; its ValueError becomes a UserError, others a PluginError."""
    try:
        with guard(spec.label, f"{method}()", (UserError, ValueError)):
            return getattr(metric, method)(data)
    except ValueError as error:
        raise UserError(f"{spec.label}: {one_line(error)}.") from None
