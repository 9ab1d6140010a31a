"""Registered metrics of decided images: value, confidence interval, and difference of two runs.

Intervals and tests of a mean over images use the images' values. Other metrics use influence
values, whose mean is the metric, or, if they declare none, a bootstrap over images (and over
raters, if there are several).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from bench.contracts.metric import Metric, MetricInput
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Floats
from bench.discovery.guard import checked_answer
from bench.discovery.targets import make_from, with_defaults
from bench.errors import UserError
from bench.machine.stages import counted
from bench.stats.inference.class_metrics import (
    class_average,
    class_counts,
    image_values,
    interval_caveat,
)
from bench.stats.inference.difference_tests import Answers, Basis, difference_test, metric_spread
from bench.stats.inference.paired import Difference, tested_difference
from bench.stats.metrics.metric_checks import MetricParts, metric_parts, metric_value, resampled
from bench.store.formats.fields import Count, Document, Number, Positive, without_none

METRIC_RESAMPLES = 2_000  # bootstrap samples; a 95 % interval cuts off 50 on each side


class MeasuredMetric(Document):
    """Value of a registered metric for a run, with its interval."""

    metric: str  # registered name
    words: str  # name in sentences
    value: Number
    ci95: tuple[Number, Number] | None  # None if no interval holds for so few images in a class
    interval: Basis
    """Method of the interval; a bootstrap is over images, and over raters if there are several."""
    images: Positive  # number of images with a weight above 0
    clusters: Positive | None = None
    """Number of images that items are about, if several are about one, which are resampled together
    """
    raters: dict[str, Number] | None = None  # value for each rater; None if there are none or one
    caveat: str | None = None  # why there is no interval
    never_predicted: Count | None = None
    """Number of classes with images that are never predicted: a precision of 0. None if none."""
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

    @override
    def value(self, data: MetricInput) -> float:
        counts = class_counts(data.labels, data.predictions, len(data.classes))
        return class_average(self._spec, *counts)

    @override
    def influence(self, data: MetricInput) -> Floats:
        return image_values(self._spec, data.labels, data.predictions)

    image_values = influence


def make_metric(spec: MetricSpec, parameters: Mapping[str, Any] | None = None) -> Metric:
    """Return a registered metric (UserError for a bad parameter, PluginError if it failed)."""
    values = spec.resolve_parameters(parameters or {})
    if spec.ratio is not None:
        return ByClass(spec)
    metric: Metric = with_defaults(make_from(spec, values), Metric)
    checked_answer(spec.label, "columns", tuple[str, ...], lambda: tuple(metric.columns))
    return metric


def measure(
    spec: MetricSpec, metric: Metric, data: MetricInput, parameters: Mapping[str, Any]
) -> MeasuredMetric:
    """Return a metric of decided images with its 95 % interval.

    Raises as `metric_parts`, and a UserError if there are too few images for a bootstrap.
    """
    parts = metric_parts(spec, metric, data)
    ends: tuple[float, float] | None
    if (answers := _answers(data, parts)) is None:
        ends, _ = _bootstrap(spec, metric, (data,))
    else:
        ends = metric_spread(spec, answers, data.labels, data.clusters).interval
    never = of_raters = None
    if spec.ratio is not None and not spec.ratio.support:
        never = len(np.setdiff1d(data.labels, data.predictions)) or None
    if len(data.raters) > 1:
        of_raters = {
            name: metric_value(spec, metric, replace(data, raters={name: rater}))
            for name, rater in data.raters.items()
        }
    resolved = spec.resolve_parameters(parameters)
    return MeasuredMetric(
        metric=spec.name,
        words=spec.words,
        value=parts.value,
        ci95=ends,
        interval=parts.basis,
        images=parts.images,
        parameters={name: resolved[name] for name in resolved if name in parameters},
        **without_none(
            caveat=interval_caveat(spec, data.labels),
            never_predicted=never,
            raters=of_raters,
            clusters=None if data.clusters is None else len(np.unique(data.clusters)),
        ),
    )


def _answers(data: MetricInput, parts: MetricParts) -> Answers | None:
    """Return the answers of a single run with the values of its images; None without values."""
    if parts.values is None:
        return None
    values = parts.values[None, None]  # of one seed and one template
    return Answers("", data.predictions[None, None], values, parts.basis, parts.images)


def measured_difference(
    spec: MetricSpec, metric: Metric, a: MetricInput, b: MetricInput
) -> MetricDifference:
    """Test B minus A on the same images: `difference_test`, or a bootstrap without image values."""
    of_a, of_b = metric_parts(spec, metric, a), metric_parts(spec, metric, b)
    answers_a, answers_b = _answers(a, of_a), _answers(b, of_b)
    if answers_a is not None and answers_b is not None:
        tested = difference_test(spec, a.labels, answers_a, answers_b, clusters=a.clusters)
    else:
        ends, p = _bootstrap(spec, metric, (a, b))
        tested = tested_difference("bootstrap", len(a), of_b.value - of_a.value, ends, p)
    return MetricDifference(metric=spec.name, a=of_a.value, b=of_b.value, difference=tested)


def _bootstrap(
    spec: MetricSpec, metric: Metric, runs: tuple[MetricInput, ...]
) -> tuple[tuple[float, float], float]:
    """Return the 95 % percentile interval of a metric, and the two-sided p-value of 0.

    For two runs, they are those of the second value minus the first, on the same bootstrap samples.
    Samples for which the metric is undefined are left out; a UserError if these are more than half.
    """
    estimates = []
    drawn = islice(zip(*map(resampled, runs), strict=True), METRIC_RESAMPLES)
    for samples in counted(drawn, "Bootstrap", METRIC_RESAMPLES, "samples"):
        with suppress(UserError):
            first, *second = (metric_value(spec, metric, sample) for sample in samples)
            estimates.append(second[0] - first if second else first)
    if len(estimates) < METRIC_RESAMPLES // 2:
        raise UserError(f"{spec.label}: too few images for a bootstrap.")
    ordered, tail = np.sort(estimates), len(estimates) // 40  # 2.5 % on each side
    fewer = min(int((ordered <= 0).sum()), int((ordered >= 0).sum()))
    p = min(1.0, 2 * (1 + fewer) / (1 + len(estimates)))
    return (float(ordered[tail]), float(ordered[-1 - tail])), p
