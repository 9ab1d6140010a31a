"""Ask the class of a backbone for facts, for which no backbone object is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import getattr_static
from typing import Any, ParamSpec, TypeVar, get_type_hints

import numpy as np

from bench.contracts.backbone import Backbone
from bench.contracts.decision import Reduction
from bench.contracts.levels import Levels
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec
from bench.contracts.typed import mismatch
from bench.discovery.guard import guard
from bench.discovery.targets import load_target, with_defaults
from bench.errors import PluginError

P = ParamSpec("P")
R = TypeVar("R")


def fact(spec: BackboneSpec, method: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """Return what a backbone's class reports, or else the default of the contract.

    `method` is a static method of the contract, such as `Backbone.level_table`; what the class
    returns must have the type of its annotation. Raises PluginError if it has not, or the class
    fails. A UserError of the class, such as about unsuitable weights, is raised unchanged.
    """
    name = method.__name__
    kind = get_type_hints(method, localns={"Levels": Levels}, include_extras=True)["return"]
    backbone_class = with_defaults(load_target(spec), Backbone)
    with guard(spec.label, f"{name}()"):
        value: Any = getattr(backbone_class, name)(*arguments, **keywords)
        value = value.item() if isinstance(value, np.generic) else value
        wrong = mismatch(value, kind, f"what {name}() returns")
    if wrong is not None:
        raise PluginError(spec.label, wrong)
    result: R = value
    return result


def can_linearise(spec: BackboneSpec) -> bool:
    """Return whether the backbone has gradients with respect to its conditioning."""
    return getattr_static(load_target(spec), "can_linearise", False) is True


def recorded_parameters(spec: BackboneSpec, weights: Any, parameters: Parameters) -> Parameters:
    """Return the parameters that identify a run, including those that the weights imply."""
    recorded = spec.recorded(parameters)
    if weights is None:
        return recorded
    return {**recorded, **fact(spec, Backbone.weight_parameters, weights, **parameters)}


def count_tokens(
    spec: BackboneSpec, weights: Any, texts: Sequence[str]
) -> tuple[list[int], int] | None:
    """Return the number of tokens of each text, and the limit; None if they cannot be counted."""
    counted = fact(spec, Backbone.token_counts, weights, texts)
    if counted is not None and len(counted[0]) != len(texts):
        problem = f"token_counts() returned {len(counted[0])} counts for {len(texts)} texts"
        raise PluginError(spec.label, problem)
    return counted


def encoder_key(spec: BackboneSpec, weights: Any, parameters: Parameters) -> str:
    """Return what the encoded prompts of a backbone depend on, except their texts and the dtype."""
    changed = {name: v for name, v in parameters.items() if v != spec.parameters[name].default}
    own = fact(spec, Backbone.encoder_key, weights, **changed)
    return f"{spec.name} {spec.version} {own}"


def read_reduction(backbone: Any, who: str) -> Reduction:
    """Return a likelihood's declared reduction; raise PluginError if it is unknown or missing."""
    with guard(who, "reading its reduction"):
        reduction: Any = getattr(backbone, "reduction", None)
        wrong = mismatch(reduction, Reduction, "its reduction")
    if wrong is not None:
        raise PluginError(who, wrong)
    result: Reduction = reduction
    return result
