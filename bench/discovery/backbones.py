"""Call the methods of a backbone's class that need no backbone object.

`weights` is a `bench.inputs.weights.Weights` or None. All functions raise a `PluginError` if the
class fails or returns something that violates the contract. A `UserError` of the class, such as
about unsuitable weights, is raised unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import getattr_static
from math import isfinite
from typing import Any

from bench.contracts.backbone import Backbone
from bench.contracts.decision import REDUCTIONS
from bench.contracts.levels import Levels
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import load_target, with_defaults
from bench.errors import PluginError


def can_linearise(spec: BackboneSpec) -> bool:
    """Return whether the backbone has gradients with respect to its conditioning."""
    return getattr_static(load_target(spec), "can_linearise", False) is True


def check_weights(spec: BackboneSpec, weights: Any, **settings: Any) -> None:
    """Let the class refuse weights before they are loaded; `settings` are dtype and parameters."""
    _call(spec, "check_weights", weights, **settings)


def recorded_parameters(spec: BackboneSpec, weights: Any, parameters: Parameters) -> Parameters:
    """Return the parameters that identify a run, including those that the weights imply."""
    recorded = spec.recorded(parameters)
    if weights is None:
        return recorded
    implied = _call(spec, "weight_parameters", weights, **parameters)
    with guard(spec.label, "weight_parameters()"):
        return {**recorded, **implied}


def count_tokens(
    spec: BackboneSpec, weights: Any, texts: Sequence[str]
) -> tuple[list[int], int] | None:
    """Return the number of tokens of each text, and the limit; None if they cannot be counted."""
    counted = _call(spec, "token_counts", weights, texts)
    if counted is None:
        return None
    with guard(spec.label, "token_counts()"):
        counts, limit = [int(count) for count in counted[0]], int(counted[1])
    if len(counts) != len(texts):
        raise PluginError(
            spec.label, f"token_counts() returned {len(counts)} counts for {len(texts)} texts"
        )
    return counts, limit


def count_operations(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the number of floating-point operations of one evaluation; None if unknown."""
    return _call_for_number(spec, "evaluation_flops", weights, resolution)


def memory_of_weights(
    spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any
) -> float | None:
    """Return the peak memory of the weights in bytes; None if unknown."""
    return _call_for_number(spec, "memory", weights, dtype, **parameters)


def working_memory(spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any) -> float | None:
    """Return the bytes that one cell and one image need besides the weights; None if unknown."""
    return _call_for_number(spec, "working_memory", weights, dtype, **parameters)


def linearisation_cost(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the cost of a linearised draw in evaluations; None if unknown."""
    return _call_for_number(spec, "linearisation_cost", weights, resolution)


def level_table(spec: BackboneSpec, weights: Any, **parameters: Any) -> Levels | None:
    """Return the noise levels, or None if only a backbone object has them."""
    levels = _call(spec, "level_table", weights, **parameters)
    if levels is not None and not isinstance(levels, Levels):
        raise PluginError(spec.label, f"level_table() returned a {type(levels).__name__}")
    return levels


def encoder_key(spec: BackboneSpec, weights: Any, parameters: Parameters) -> str:
    """Return what the encoded prompts of a backbone depend on, except their texts and the dtype."""
    changed = {name: v for name, v in parameters.items() if v != spec.parameters[name].default}
    return f"{spec.name} {spec.version} {_call(spec, 'encoder_key', weights, **changed)}"


def read_reduction(backbone: Any, who: str) -> str:
    """Return a likelihood's declared reduction; raise PluginError if it is unknown or missing."""
    with guard(who, "reading its reduction"):
        reduction: Any = getattr(backbone, "reduction", None)
    if reduction not in REDUCTIONS:
        raise PluginError(
            who, f"reduction must be one of {', '.join(REDUCTIONS)}, got {one_line(reduction)}"
        )
    return str(reduction)


def _call(spec: BackboneSpec, method: str, *arguments: Any, **keywords: Any) -> Any:
    """Call a method of the class, or its default in the contract."""
    backbone_class = with_defaults(load_target(spec), Backbone)
    with guard(spec.label, f"{method}()"):
        return getattr(backbone_class, method)(*arguments, **keywords)


def _call_for_number(
    spec: BackboneSpec, method: str, *arguments: Any, **keywords: Any
) -> float | None:
    number = _call(spec, method, *arguments, **keywords)
    if number is None:
        return None
    with guard(spec.label, f"{method}()"):
        value = float(number)
    if not (value > 0 and isfinite(value)):
        raise PluginError(
            spec.label, f"{method}() must return a positive number or None, got {one_line(number)}"
        )
    return value
