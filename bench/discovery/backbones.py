"""What a backbone's class declares before a backbone is made; calls are guarded.

`weights` is a `bench.inputs.weights.Weights` or None. All functions raise a `PluginError` where the
class fails, or returns something else than the contract says.
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
    """Return whether the backbone offers gradients with respect to its conditioning."""
    return getattr_static(load_target(spec), "can_linearise", False) is True


def check_weights(spec: BackboneSpec, weights: Any, **settings: Any) -> None:
    """Refuse weights that would not load (UserError); `settings`: dtype and parameters."""
    _call(spec, "check_weights", weights, **settings)


def recorded_parameters(spec: BackboneSpec, weights: Any, parameters: Parameters) -> Parameters:
    """Return the parameters that identify a run, with those that the weights decide (UserError).

    A parameter that came later is left out at its default, so that earlier ids stay.
    """
    recorded = {
        name: value
        for name, value in parameters.items()
        if not (spec.parameters[name].later and value == spec.parameters[name].default)
    }
    if weights is None:
        return recorded
    decided = _call(spec, "weight_parameters", weights, **parameters)
    with guard(spec.label, "weight_parameters()"):
        return {**recorded, **decided}


def count_tokens(
    spec: BackboneSpec, weights: Any, texts: Sequence[str]
) -> tuple[list[int], int] | None:
    """Return the tokens of each text and their limit; None where the backbone cannot count."""
    counted = _call(spec, "token_counts", weights, texts)
    if counted is None:
        return None
    with guard(spec.label, "token_counts()"):
        counts, most = [int(count) for count in counted[0]], int(counted[1])
    if len(counts) != len(texts):
        raise PluginError(
            spec.label, f"token_counts() returned {len(counts)} counts for {len(texts)} texts"
        )
    return counts, most


def count_operations(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the floating-point operations of one evaluation; None if unknown."""
    return _positive(spec, "evaluation_flops", weights, resolution)


def memory_of_weights(
    spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any
) -> float | None:
    """Return the bytes of the weights that are in memory together; None if unknown."""
    return _positive(spec, "memory", weights, dtype, **parameters)


def working_memory(spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any) -> float | None:
    """Return the bytes beside the weights for one cell and one image; None if unknown."""
    return _positive(spec, "working_memory", weights, dtype, **parameters)


def linearisation_cost(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the evaluations that a linearised draw counts as; None if unknown."""
    return _positive(spec, "linearisation_cost", weights, resolution)


def level_table(spec: BackboneSpec, weights: Any, **parameters: Any) -> Levels | None:
    """Return the noise levels (UserError); None where only a backbone that is made has them."""
    levels = _call(spec, "level_table", weights, **parameters)
    if levels is not None and not isinstance(levels, Levels):
        raise PluginError(spec.label, f"level_table() returned a {type(levels).__name__}")
    return levels


def read_reduction(backbone: Any, who: str) -> str:
    """Return the reduction of a likelihood or its class; raise `PluginError` where it has none."""
    with guard(who, "reading its reduction"):
        reduction: Any = getattr(backbone, "reduction", None)
    if reduction not in REDUCTIONS:
        raise PluginError(
            who, f"its reduction is {one_line(reduction)}; expected one of {', '.join(REDUCTIONS)}"
        )
    return str(reduction)


def _call(spec: BackboneSpec, method: str, *arguments: Any, **keywords: Any) -> Any:
    """Return what a method of the class, or its default in the contract, returns."""
    kind = with_defaults(load_target(spec), Backbone)
    with guard(spec.label, f"{method}()"):
        return getattr(kind, method)(*arguments, **keywords)


def _positive(spec: BackboneSpec, method: str, *arguments: Any, **keywords: Any) -> float | None:
    number = _call(spec, method, *arguments, **keywords)
    if number is None:
        return None
    with guard(spec.label, f"{method}()"):
        value = float(number)
    if not (value > 0 and isfinite(value)):
        raise PluginError(spec.label, f"{method}() returned {one_line(number)}")
    return value
