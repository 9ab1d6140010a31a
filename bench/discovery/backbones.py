"""What a backbone's class says before a backbone is made, through the guard."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import getattr_static
from math import isfinite
from typing import Any

from bench.contracts.backbone import Backbone
from bench.contracts.levels import Levels
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import load_target, with_defaults
from bench.errors import PluginError


def can_linearise(spec: BackboneSpec) -> bool:
    """Return whether it offers gradients to its conditioning."""
    return getattr_static(load_target(spec), "can_linearise", False) is True


def check_weights(spec: BackboneSpec, weights: Any, **settings: Any) -> None:
    """Have it refuse weights that it could not load, where it can tell before reading them.

    Args:
        spec: the backbone.
        weights: `bench.inputs.weights.Weights`, or None.
        settings: dtype and the backbone's parameters.

    Raises:
        UserError: they would not load.
        PluginError: it failed to tell.
    """
    kind = _class(spec)
    with guard(spec.label, "check_weights()"):
        kind.check_weights(weights, **settings)


def recorded_parameters(spec: BackboneSpec, weights: Any, parameters: Parameters) -> Parameters:
    """Return the parameters that identify a run, those that the weights decide included.

    A parameter that came later is left out at its default, so that earlier ids stay.

    Args:
        spec: the backbone.
        weights: `bench.inputs.weights.Weights`, or None.
        parameters: all of its parameters.

    Raises:
        UserError: what it says of the weights.
        PluginError: it failed to tell.
    """
    recorded = {
        name: value
        for name, value in parameters.items()
        if not (spec.parameters[name].later and value == spec.parameters[name].default)
    }
    if weights is None:
        return recorded
    kind = _class(spec)
    with guard(spec.label, "weight_parameters()"):
        return {**recorded, **kind.weight_parameters(weights, **parameters)}


def count_tokens(
    spec: BackboneSpec, weights: Any, texts: Sequence[str]
) -> tuple[list[int], int] | None:
    """Return each text's tokens and the most there may be; None where it cannot count.

    Raises:
        PluginError: it failed to count, or returned something else.
    """
    kind = _class(spec)
    with guard(spec.label, "token_counts()"):
        counted = kind.token_counts(weights, texts)
        if counted is None:
            return None
        counts, most = [int(count) for count in counted[0]], int(counted[1])
    if len(counts) != len(texts):
        raise PluginError(
            spec.label, f"token_counts() returned {len(counts)} counts for {len(texts)} texts"
        )
    return counts, most


def count_operations(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the floating-point operations of one evaluation; None where it cannot count.

    Raises:
        PluginError: it failed to count, or returned no positive number.
    """
    kind = _class(spec)
    with guard(spec.label, "evaluation_flops()"):
        return _positive(spec, "evaluation_flops()", kind.evaluation_flops(weights, resolution))


def memory_of_weights(
    spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any
) -> float | None:
    """Return the bytes of the weights that are in memory together; None where it cannot tell.

    Raises:
        PluginError: it failed to tell, or returned no positive number.
    """
    kind = _class(spec)
    with guard(spec.label, "memory()"):
        return _positive(spec, "memory()", kind.memory(weights, dtype, **parameters))


def linearisation_cost(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the evaluations that a linearised draw counts as; None where it does not say.

    Raises:
        PluginError: it failed to tell, or returned no positive number.
    """
    kind = _class(spec)
    with guard(spec.label, "linearisation_cost()"):
        cost = kind.linearisation_cost(weights, resolution)
        return _positive(spec, "linearisation_cost()", cost)


def level_table(spec: BackboneSpec, weights: Any, **parameters: Any) -> Levels | None:
    """Return its noise levels; None where it knows them only when it is made.

    Raises:
        UserError: what it says of the weights.
        PluginError: it failed to tell, or returned something else.
    """
    kind = _class(spec)
    with guard(spec.label, "level_table()"):
        levels: Any = kind.level_table(weights, **parameters)
    if levels is not None and not isinstance(levels, Levels):
        raise PluginError(spec.label, f"level_table() returned a {type(levels).__name__}")
    return levels


def _class(spec: BackboneSpec) -> type[Backbone]:
    """Return its class with the defaults of the contract."""
    kind: type[Backbone] = with_defaults(load_target(spec), Backbone)
    return kind


def _positive(spec: BackboneSpec, call: str, given: Any) -> float | None:
    if given is None:
        return None
    value = float(given)
    if not (value > 0 and isfinite(value)):
        raise PluginError(spec.label, f"{call} returned {one_line(given)}")
    return value
