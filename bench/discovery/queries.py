"""What is registered: the exhaustive strategy, parameters off their defaults, the metrics."""

from typing import Any, Literal

from bench.contracts.metric_spec import MetricSpec
from bench.contracts.parameters import Parameters
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry
from bench.errors import UserError


def exhaustive_strategy() -> str:
    """Return the name of the first strategy that declares to evaluate every prompt on every draw.

    Other strategies are compared with its decisions and replayed on its recordings. Raises
    UserError if there is none.
    """
    for spec in load_plugins().strategies:
        if spec.exhaustive:
            return spec.name
    raise UserError("No installed strategy evaluates every prompt on every draw (exhaustive=True).")


def non_default_params(
    kind: Literal["strategies", "backbones"], name: str, params: Parameters
) -> Parameters:
    """Return the parameters that differ from their default; all of them if `name` is unknown."""
    registry: Registry[Any] = getattr(load_plugins(), kind)
    if name not in registry:
        return dict(params)
    spec = registry.get(name)
    return {key: value for key, value in params.items() if not spec.is_default(key, value)}


def metric_specs() -> dict[str, MetricSpec]:
    """Return the registered metrics by name, the toolkit's own first."""
    return load_plugins().metrics.by_name()


def metric_of_runs(name: str) -> MetricSpec:
    """Return the spec of a metric; raise UserError if it is unknown or needs a rater."""
    spec = load_plugins().metrics.get(name)
    if "rater" in spec.needs:
        raise UserError(
            f"There is no rater here for {spec.words} to compare with. Name one with:"
            f" bench show RUN --metric {name} --with OTHER"
        )
    return spec
