"""Registered metrics on decided images."""

from __future__ import annotations

import warnings
from typing import Any

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.discovery.guard import guard
from bench.discovery.targets import make, with_defaults
from bench.errors import BenchWarning, PluginError, UserError
from bench.stats.class_metrics import class_average, class_counts


def make_metric(spec: MetricSpec, **parameters: Any) -> Metric:
    """Return the metric of a spec with these parameters, the others at their defaults.

    UserError: a parameter is unknown or does not fit; PluginError: its class failed.
    """
    values = spec.resolve_parameters(parameters)
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
    try:
        with guard(spec.label, "value()", (UserError, ValueError)):
            value = float(metric.value(data))
    except ValueError as error:
        raise UserError(f"{spec.label}: {error}.") from None
    if not low - 1e-9 <= value <= high + 1e-9:
        raise PluginError(spec.label, f"value() returned {value}, not {low:g} to {high:g}")
    return min(max(value, low), high)


def summary_value(spec: MetricSpec, data: MetricInput) -> float | None:
    """Return a metric for a summary; None, with a warning, where its plugin fails."""
    if spec.ratio is not None:
        counts = class_counts(data.labels, data.predictions, len(data.classes))
        return class_average(spec, *counts)
    try:
        return metric_value(spec, make_metric(spec), data)
    except PluginError as error:
        warnings.warn(f"{error} The summary lacks it.", BenchWarning, stacklevel=2)
    except UserError:
        pass  # these images do not define it
    return None
