"""The registered metrics, in the order of their registration."""

from __future__ import annotations

from bench.contracts.metrics import MetricSpec
from bench.discovery.loading import load_plugins
from bench.errors import UserError, did_you_mean


def metric_specs() -> dict[str, MetricSpec]:
    """Return the registered metrics by name, the toolkit's own first."""
    return load_plugins().metrics.by_name()


def difference_metrics() -> tuple[str, ...]:
    """Return the metrics that differences are tested in for all runs of a study."""
    return tuple(name for name, metric in metric_specs().items() if metric.tested)


def difference_metric(name: str) -> MetricSpec:
    """Return a metric that differences are tested in; UserError: there is none of this name."""
    names = difference_metrics()
    if name not in names:
        raise UserError(
            f"Differences are not tested in {name!r}.{did_you_mean(name, names)} Metrics:"
            f" {', '.join(names)}."
        )
    return metric_specs()[name]
