"""What a backbone's class says before a backbone is made, through the guard."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from bench.contracts import abilities
from bench.contracts.levels import Levels
from bench.contracts.specs import BackboneSpec
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import load_target
from bench.errors import PluginError


def can_linearise(spec: BackboneSpec) -> bool:
    """Return whether it offers gradients to its conditioning."""
    return abilities.can_linearise(load_target(spec))


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
    target = load_target(spec)
    if abilities.checks_weights(target):
        with guard(spec.label, "check_weights()"):
            target.check_weights(weights, **settings)


def count_tokens(
    spec: BackboneSpec, weights: Any, texts: Sequence[str]
) -> tuple[list[int], int] | None:
    """Return each text's tokens and the most there may be; None where it cannot count.

    Raises:
        PluginError: it failed to count, or returned something else.
    """
    target = load_target(spec)
    if not abilities.counts_tokens(target):
        return None
    with guard(spec.label, "token_counts()"):
        given, most = target.token_counts(weights, texts)
        counts, most = [int(count) for count in given], int(most)
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
    target = load_target(spec)
    if not abilities.counts_operations(target):
        return None
    with guard(spec.label, "evaluation_flops()"):
        return _positive(spec, "evaluation_flops()", target.evaluation_flops(weights, resolution))


def memory_of_weights(
    spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any
) -> float | None:
    """Return the bytes of the weights that are in memory together; None where it cannot tell.

    Raises:
        PluginError: it failed to tell, or returned no positive number.
    """
    target = load_target(spec)
    if not abilities.knows_its_memory(target):
        return None
    with guard(spec.label, "memory()"):
        return _positive(spec, "memory()", target.memory(weights, dtype, **parameters))


def linearisation_cost(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the evaluations that a linearised draw counts as; None where it does not say.

    Raises:
        PluginError: it failed to tell, or returned no positive number.
    """
    target = load_target(spec)
    if not abilities.prices_linearisations(target):
        return None
    with guard(spec.label, "linearisation_cost()"):
        cost = target.linearisation_cost(weights, resolution)
        return _positive(spec, "linearisation_cost()", cost)


def level_table(spec: BackboneSpec, weights: Any, **parameters: Any) -> Levels | None:
    """Return its noise levels; None where it knows them only when it is made.

    Raises:
        UserError: what it says of the weights.
        PluginError: it failed to tell, or returned something else.
    """
    target = load_target(spec)
    if not abilities.tabulates_levels(target):
        return None
    with guard(spec.label, "level_table()"):
        levels: Any = target.level_table(weights, **parameters)
    if not isinstance(levels, Levels):
        raise PluginError(spec.label, f"level_table() returned a {type(levels).__name__}")
    return levels


def _positive(spec: BackboneSpec, call: str, given: Any) -> float:
    value = float(given)
    if not (value > 0 and isfinite(value)):
        raise PluginError(spec.label, f"{call} returned {one_line(given)}")
    return value
