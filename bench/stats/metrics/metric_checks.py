"""Checks of what the metrics of plugins return, by a few more calls of them.

Values must be real numbers, as many as there are images and in the declared range, and the same in
a second call and for the images in another order. Of influence values only the deviations from
their mean are used, if the standard error that follows from them is that of a bootstrap.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from bench.contracts.metric import Metric, MetricInput
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Floats, Ints
from bench.discovery.guard import guard, one_line
from bench.errors import PluginError, UserError, warn_user
from bench.stats.inference.class_metrics import count_earlier
from bench.stats.inference.difference_tests import MIN_RELIABLE, MIN_TESTED, Basis
from bench.stats.inference.variance import image_error

REAL = "biuf"  # kinds of numpy's dtypes of real numbers
MAX_ROUNDING = 1e-6  # of values that must be equal, relative to a value above 1
MAX_BIAS = 0.25  # of the mean of influence values, in standard errors
ERROR_RATIO = (0.67, 1.5)  # of the standard errors from influence values and from a bootstrap
CHECK_RESAMPLES = 100  # of this bootstrap, whose standard error is then exact to 7 %
MIN_CHECKED = 30  # images; with fewer, influence values are not compared with a bootstrap
MAX_CHECKED = 50_000  # images × classes in this bootstrap, which then takes less than a second


class MetricParts(NamedTuple):
    """A metric of decided images, and what its interval and its tests are computed from."""

    value: float
    values: Floats | None  # float64 [n], whose mean is the metric; None for a bootstrap
    basis: Basis  # what the values are
    images: int  # number of images with a weight above 0


def metric_value(spec: MetricSpec, metric: Metric, data: MetricInput) -> float:
    """Return a metric's value (UserError if undefined; PluginError if failed or out of range)."""
    if spec.mean_over_images:
        _weighted(spec, metric, data)  # raises first: `value` uses them, and may hide what is wrong
    low, high = spec.range
    value = float(_numbers(spec, "value", _called(spec, metric, "value", data), ()))
    if not low - 1e-9 <= value <= high + 1e-9:
        raise PluginError(spec.label, f"value() must be between {low:g} and {high:g}, got {value}")
    return min(max(value, low), high)


def checked_value(spec: MetricSpec, metric: Metric, data: MetricInput) -> float:
    """Return `metric_value`; PluginError if a second call or another order gives another value."""
    value = metric_value(spec, metric, data)
    if spec.ratio is not None:  # computed by the toolkit
        return value
    for case, same in (("a second time", data), ("in another order", data.take(_order(data)))):
        again = metric_value(spec, metric, same)
        if not np.isclose(again, value, MAX_ROUNDING, MAX_ROUNDING):
            problem = f"value() of the same images is {value:g}, and {again:g} {case}"
            raise PluginError(spec.label, problem)
    for place in (0, 1) if data.items else ():
        again = metric_value(spec, metric, _turned(data, place))
        if not np.isclose(again, value, MAX_ROUNDING, MAX_ROUNDING):
            raise UserError(
                f"{spec.label}: it depends on the order of an item's texts, so that items have no"
                " such metric."
            )
    return value


def metric_parts(spec: MetricSpec, metric: Metric, data: MetricInput) -> MetricParts:
    """Return a metric with the values of the images from which intervals and tests follow.

    The values of a weighted mean are its influence values. They are None, with the basis
    "bootstrap", if the metric is no mean over images and has no influence values that can be used;
    a warning names a metric whose influence values cannot. Raises UserError if no image has a
    weight above 0, or the metric rejects the images, and PluginError if the metric failed, its
    values are not n finite numbers, depend on the order of the images, or are not those of a mean
    over images although it declares that.
    """
    value = checked_value(spec, metric, data)
    values, basis = _values(spec, metric, data)
    parts = MetricParts(value, values, basis, len(data))
    if values is None or spec.ratio is not None:
        return parts
    order, mean = _order(data), float(values.mean())
    again, _ = _values(spec, metric, data.take(order))
    if again is None or not np.allclose(again, values[order], MAX_ROUNDING, MAX_ROUNDING):
        raise PluginError(spec.label, f"its {basis} values depend on the order of the images")
    if not spec.mean_over_images:
        return _influence_parts(spec, metric, data, parts)
    if not np.isclose(mean, value, MAX_ROUNDING, MAX_ROUNDING):
        raise PluginError(spec.label, f"the mean of its {basis} values is {mean:g}, not {value:g}")
    return parts._replace(images=int((_weighted(spec, metric, data)[1] > 0).sum()))


def _influence_parts(
    spec: MetricSpec, metric: Metric, data: MetricInput, parts: MetricParts
) -> MetricParts:
    value, values = parts.value, parts.values
    assert values is not None
    mean, error = float(values.mean()), image_error(values[None, None])
    if abs(mean - value) > max(MAX_BIAS * error, MAX_ROUNDING):
        warn_user(
            f"{spec.label}: the mean of its influence values is {mean:g}, not {value:g}; only their"
            " deviations from their mean are used."
        )
    if (problem := influence_problem(spec, metric, data)) is not None:
        warn_user(f"{spec.label}: {problem}. Its intervals and tests are those of a bootstrap.")
        return parts._replace(values=None, basis="bootstrap")
    return parts._replace(values=value + (values - mean))


def influence_problem(spec: MetricSpec, metric: Metric, data: MetricInput) -> str | None:
    """Return why the influence values of a metric cannot be used, or None.

    Their standard error must be within `ERROR_RATIO` of that of a bootstrap with fixed samples.
    """
    part = data.take(_checked_images(data))
    if len(part) < MIN_CHECKED:
        return None
    values, estimates = None, list[float]()
    with suppress(UserError):  # the metric is undefined for these images alone
        values, _ = _values(spec, metric, part)
    for sample in islice(resampled(part), CHECK_RESAMPLES):
        with suppress(UserError):
            estimates.append(metric_value(spec, metric, sample))
    if values is None or len(estimates) <= CHECK_RESAMPLES // 2:
        return None
    stated, seen = image_error(values[None, None]), float(np.std(estimates, ddof=1))
    if ERROR_RATIO[0] * seen - MAX_ROUNDING <= stated <= ERROR_RATIO[1] * seen + MAX_ROUNDING:
        return None
    return f"the standard error by its influence values is {stated:.3g}, by a bootstrap {seen:.3g}"


def _checked_images(data: MetricInput) -> Ints:
    """Return the images of a bootstrap whose cost `MAX_CHECKED` bounds.

    They are the first of each class, at least `MIN_RELIABLE`, of as many classes as possible.
    Classes of fewer than `MIN_TESTED` images are left out: linear approximations are poor there.
    """
    counts, classes = np.bincount(data.labels), len(data.classes)
    most = max(MIN_RELIABLE, MAX_CHECKED // classes**2)
    sizes = np.where(counts < MIN_TESTED, 0, np.minimum(counts, most))
    used = (sizes > 0) & (np.cumsum(sizes) * classes <= MAX_CHECKED)
    return np.flatnonzero(used[data.labels] & (count_earlier(data.labels) < most))


def resampled(data: MetricInput) -> Iterator[MetricInput]:
    """Yield bootstrap samples of images and raters without end, with the same images every time.

    Items about the same image are drawn together.
    """
    rng, n, names = np.random.default_rng(0), len(data), list(data.raters)
    rows: list[Ints] = []
    if data.clusters is not None:
        rows = [np.flatnonzero(data.clusters == number) for number in np.unique(data.clusters)]
    while True:
        drawn = rng.integers(len(rows) or n, size=len(rows) or n)
        sample = data.take(np.concatenate([rows[unit] for unit in drawn]) if rows else drawn)
        if len(names) > 1:
            chosen = rng.integers(len(names), size=len(names))
            raters = {str(number): sample.raters[names[c]] for number, c in enumerate(chosen)}
            sample = replace(sample, raters=raters)
        yield sample


def _turned(data: MetricInput, place: int) -> MetricInput:
    """Return items with the answers of each turned until the right one is at this place."""
    answers = max(2, len(data.classes))

    def moved(chosen: Ints) -> Ints:
        return np.where(chosen < 0, chosen, (chosen - data.labels + place) % answers)

    raters = {name: moved(rater) for name, rater in data.raters.items()}
    labels, predictions = moved(data.labels), moved(data.predictions)
    return replace(data, labels=labels, predictions=predictions, raters=raters)


def _order(data: MetricInput) -> Ints:
    return np.random.default_rng(0).permutation(len(data))


def _values(spec: MetricSpec, metric: Metric, data: MetricInput) -> tuple[Floats | None, Basis]:
    """Return the values of `MetricParts` and what they are, not yet compared with the metric."""
    if not spec.mean_over_images:
        returned = _called(spec, metric, "influence", data)
        if returned is None:
            return None, "bootstrap"
        values = _numbers(spec, "influence", returned, (len(data),))
        if not np.isfinite(values).all():
            raise PluginError(spec.label, f"influence() must be {len(data)} finite numbers")
        return values, "influence"
    values, weights = _weighted(spec, metric, data)
    if (weights == 1).all():
        return values, "images"
    if not weights.sum() > 0:
        raise UserError(f"{spec.label}: no image has a weight above 0.")
    values = np.where(weights > 0, values, 0.0)
    mean = np.average(values, weights=weights)
    return np.asarray(mean + weights / weights.mean() * (values - mean)), "influence"


def _weighted(spec: MetricSpec, metric: Metric, data: MetricInput) -> tuple[Floats, Floats]:
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
    with guard(spec.label, f"{method}()", refuses=True):
        return getattr(metric, method)(data)
