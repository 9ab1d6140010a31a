"""Registered metrics of decided images: value, interval, and difference of two runs.

The interval and the test follow from the declaration: of a mean over images, from the images'
values; else from influence values, whose mean is the metric; else from a bootstrap over images,
and over raters where there are several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats
from bench.discovery.guard import guard
from bench.discovery.targets import make, with_defaults
from bench.errors import PluginError, UserError, warn_user
from bench.stats.class_metrics import class_average, class_counts, image_values
from bench.stats.crossed import spread
from bench.stats.difference_tests import Answers, DifferenceTest, Method, difference_test
from bench.store.fields import Document, Number, Positive

METRIC_RESAMPLES = 2_000  # of a bootstrap: an interval ends at its 50th smallest and largest


class MeasuredMetric(Document):
    """A metric of a run."""

    metric: str  # registered name
    words: str  # name in sentences
    value: Number
    ci95: tuple[Number, Number]
    interval: Method
    """What the interval is from: the images' values, influence values, or a bootstrap over images,
    and over raters where there are several."""
    images: Positive  # number of images that count in it
    raters: dict[str, Number] | None = None  # value with each rater, where there are several
    parameters: dict[str, Any] = Field({})  # parameters of the metric that were set


class ByClass(Metric):
    """A metric with a ratio, as a class."""

    def __init__(self, spec: MetricSpec) -> None:
        self._spec = spec

    def value(self, data: MetricInput) -> float:
        """Return the average over classes."""
        counts = class_counts(data.labels, data.predictions, len(data.classes))
        return class_average(self._spec, *counts)

    def influence(self, data: MetricInput) -> Floats:
        """Return the images' values, whose mean is the metric."""
        return image_values(self._spec, data.labels, data.predictions)

    image_values = influence


def make_metric(spec: MetricSpec, parameters: Mapping[str, Any] | None = None) -> Metric:
    """Return the metric of a spec with these parameters, the others at their defaults.

    UserError: a parameter is unknown or does not fit; PluginError: its class failed.
    """
    values = spec.resolve_parameters(parameters or {})
    if spec.ratio is not None:
        return ByClass(spec)
    try:
        made = make(spec, passing=(ValueError,), **values)
    except ValueError as error:
        raise UserError(f"{spec.label}: {error}.") from None
    metric: Metric = with_defaults(made, Metric)
    return metric


def metric_value(spec: MetricSpec, metric: Metric, data: MetricInput) -> float:
    """Return a metric of decided images.

    UserError: these images do not define it; PluginError: it failed, or is outside its range.
    """
    low, high = spec.range
    value = float(_called(spec, metric.value, data))
    if not low - 1e-9 <= value <= high + 1e-9:
        raise PluginError(spec.label, f"value() returned {value}, not {low:g} to {high:g}")
    return min(max(value, low), high)


def summary_value(spec: MetricSpec, data: MetricInput) -> float | None:
    """Return a metric for a summary; None, with a warning, where its plugin fails."""
    try:
        return metric_value(spec, make_metric(spec), data)
    except PluginError as error:
        warn_user(f"{error} The summary lacks it.")
    except UserError:
        pass  # these images do not define it
    return None


def measure(
    spec: MetricSpec, metric: Metric, data: MetricInput, parameters: Mapping[str, Any]
) -> MeasuredMetric:
    """Return a metric of decided images with its 95 % interval (UserError, PluginError)."""
    value, (values, method) = metric_value(spec, metric, data), image_parts(spec, metric, data)
    images = len(data)
    if values is None:
        ends, _ = _percentiles(spec, metric, (data,))
    else:
        ends = spread(values[None, None], within=spec.range).interval
    if spec.mean_over_images:
        images = int((_called(spec, metric.image_weights, data) > 0).sum())
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
    """Return values of the images whose mean is the metric, float64 [n], and what they are.

    Of a weighted mean, they are its influence values. None: the metric has none.
    """
    if not spec.mean_over_images:
        influence = _called(spec, metric.influence, data)
        return (None, "bootstrap") if influence is None else (influence, "influence")
    values = np.asarray(_called(spec, metric.image_values, data), dtype=np.float64)
    weights = np.asarray(_called(spec, metric.image_weights, data), dtype=np.float64)
    if values.shape != (len(data),) or not np.isfinite(values[weights > 0]).all():
        raise PluginError(spec.label, f"image_values() is not one finite number for {len(data)}")
    if (weights == 1).all():
        return values, "images"
    if not weights.sum() > 0:
        raise UserError(f"{spec.label}: no image counts in it.")
    values = np.where(weights > 0, values, 0.0)
    mean = np.average(values, weights=weights)
    return np.asarray(mean + weights / weights.mean() * (values - mean)), "influence"


def measured_difference(
    spec: MetricSpec, metric: Metric, a: MetricInput, b: MetricInput
) -> DifferenceTest:
    """Return the paired test of the metric of run B less that of run A on the same images.

    As a study's of two runs; without values of the images, by a paired bootstrap.
    """
    of_a, of_b = (_answers(spec, metric, data) for data in (a, b))
    if of_a is not None and of_b is not None:
        return difference_test(spec, a.labels, of_a, of_b)
    ends, p = _percentiles(spec, metric, (a, b))
    return DifferenceTest("bootstrap", p, ends)


def _answers(spec: MetricSpec, metric: Metric, data: MetricInput) -> Answers | None:
    values, method = image_parts(spec, metric, data)
    if values is None:
        return None
    return Answers("", (data.predictions[None, None],), (values[None, None],), method)


def by_group(
    spec: MetricSpec, metric: Metric, data: MetricInput, names: NDArray[np.str_]
) -> Iterator[tuple[str, MeasuredMetric | str]]:
    """Yield each group's name with the metric of its images, or the reason why it has none.

    `names` are the group of each image, str [n]; "" is in no group.
    """
    for name in sorted(set(names.tolist()) - {""}):
        part = data.take(np.flatnonzero(names == name))
        try:
            yield name, measure(spec, metric, part, {})
        except UserError as error:
            yield name, str(error)


def _percentiles(
    spec: MetricSpec, metric: Metric, runs: tuple[MetricInput, ...]
) -> tuple[tuple[float, float], float]:
    """Return the 95 % interval of a bootstrap, and the two-sided p of 0, of the last run's value.

    Of two runs, it is the last one's value less the first one's, on the same draws. Draws that do
    not define the metric are left out.
    """
    drawn = []
    for parts in zip(*map(_resampled, runs), strict=True):
        with suppress(UserError):
            values = [metric_value(spec, metric, part) for part in parts]
            drawn.append(values[-1] - (values[0] if len(values) > 1 else 0.0))
    if len(drawn) < METRIC_RESAMPLES // 2:
        raise UserError(f"{spec.label}: too few images for a bootstrap.")
    ordered, tail = np.sort(drawn), len(drawn) // 40
    least = min(int((ordered <= 0).sum()), int((ordered >= 0).sum()))
    p = min(1.0, 2 * (1 + least) / (1 + len(drawn)))
    return (float(ordered[tail]), float(ordered[-1 - tail])), p


def _resampled(data: MetricInput) -> Iterator[MetricInput]:
    """Yield the images drawn with replacement, and the raters; of two runs, the same ones."""
    rng, n, names = np.random.default_rng(0), len(data), list(data.raters)
    for _ in range(METRIC_RESAMPLES):
        part = data.take(rng.integers(n, size=n))
        if len(names) > 1:
            chosen = rng.integers(len(names), size=len(names))
            raters = {str(place): part.raters[names[c]] for place, c in enumerate(chosen)}
            part = replace(part, raters=raters)
        yield part


def _called(spec: MetricSpec, function: Callable[..., Any], data: MetricInput) -> Any:
    try:
        with guard(spec.label, f"{function.__name__}()", (UserError, ValueError)):
            return function(data)
    except ValueError as error:
        raise UserError(f"{spec.label}: {error}.") from None
