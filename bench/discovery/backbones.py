"""Ask a backbone's class what needs no backbone object, or remember what it answered.

`weights` is a `bench.inputs.weights.Weights` or None. All functions raise a `PluginError` if the
class fails or returns something that violates the contract. A `UserError` of the class, such as
about unsuitable weights, is raised unchanged. Answers are remembered by `bench.discovery.answers`,
except those about an object in memory, about weights whose files the Hub never listed, and the
check of weights on the Hub, which downloads them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from inspect import getattr_static
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.contracts.backbone import Backbone
from bench.contracts.decision import REDUCTIONS
from bench.contracts.levels import Column, Levels
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec
from bench.discovery import targets
from bench.discovery.answers import SHIPPED, remember
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import load_target, with_defaults
from bench.errors import PluginError

T = TypeVar("T")


def can_linearise(spec: BackboneSpec) -> bool:
    """Return whether the backbone has gradients with respect to its conditioning."""
    name = "can_linearise"
    return remember(spec, name, lambda: getattr_static(load_target(spec), name, False) is True)


def offers(spec: BackboneSpec, default: Callable[..., Any]) -> bool:
    """Return whether the backbone has its own version of `default`, a contract's method."""
    question = f"offers {default.__name__}"
    return remember(spec, question, lambda: targets.offers(load_target(spec), default))


def reduction_of(spec: BackboneSpec) -> str:
    """Return how the class of a likelihood reduces draws."""
    return remember(spec, "reduction", lambda: read_reduction(load_target(spec), spec.label))


def check_weights(spec: BackboneSpec, weights: Any, **settings: Any) -> None:
    """Let the class refuse weights before they are loaded; `settings` are dtype and parameters."""
    _ask(spec, "check_weights", weights, lambda answer: None, **settings)


def recorded_parameters(spec: BackboneSpec, weights: Any, parameters: Parameters) -> Parameters:
    """Return the parameters that identify a run, including those that the weights imply."""
    recorded = spec.recorded(parameters)
    if weights is None:
        return recorded
    return {**recorded, **_ask(spec, "weight_parameters", weights, dict[str, Any], **parameters)}


def count_tokens(
    spec: BackboneSpec, weights: Any, texts: Sequence[str]
) -> tuple[list[int], int] | None:
    """Return the number of tokens of each text, and the limit; None if they cannot be counted."""

    def plain(answer: Any) -> list[Any] | None:
        if answer is None:
            return None
        counts, limit = [int(count) for count in answer[0]], int(answer[1])
        if len(counts) != len(texts):
            problem = f"token_counts() returned {len(counts)} counts for {len(texts)} texts"
            raise PluginError(spec.label, problem)
        return [counts, limit]

    counted = _ask(spec, "token_counts", weights, plain, list(texts))
    return None if counted is None else (counted[0], counted[1])


def count_operations(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the number of floating-point operations of one evaluation; None if unknown."""
    return _ask_number(spec, "evaluation_flops", weights, resolution)


def memory_of_weights(
    spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any
) -> float | None:
    """Return the peak memory of the weights in bytes; None if unknown."""
    return _ask_number(spec, "memory", weights, dtype, **parameters)


def working_memory(spec: BackboneSpec, weights: Any, dtype: str, **parameters: Any) -> float | None:
    """Return the bytes that one cell and one image need besides the weights; None if unknown."""
    return _ask_number(spec, "working_memory", weights, dtype, **parameters)


def linearisation_cost(spec: BackboneSpec, weights: Any, resolution: int | None) -> float | None:
    """Return the cost of a linearised draw in evaluations; None if unknown."""
    return _ask_number(spec, "linearisation_cost", weights, resolution)


def level_table(spec: BackboneSpec, weights: Any, **parameters: Any) -> Levels | None:
    """Return the noise levels, or None if only a backbone object has them."""

    def plain(levels: Any) -> dict[str, str] | None:
        if not isinstance(levels, Levels | None):
            name = type(levels).__name__
            raise PluginError(spec.label, f"level_table() returned a {name}")
        columns = {} if levels is None else levels.columns()
        return {name: _packed(column) for name, column in columns.items()} or None

    stored = _ask(spec, "level_table", weights, plain, **parameters)
    columns = {name: _unpacked(text) for name, text in (stored or {}).items()}
    return Levels(**columns) if columns else None


def _packed(column: Column) -> str:
    """Return a column as text: its dtype, and its compressed values in base64."""
    return f"{column.dtype.str} {base64.b64encode(zlib.compress(column.tobytes())).decode()}"


def _unpacked(text: str) -> Column:
    dtype, _, values = text.partition(" ")
    return np.frombuffer(zlib.decompress(base64.b64decode(values)), dtype)


def encoder_key(spec: BackboneSpec, weights: Any, parameters: Parameters) -> str:
    """Return what the encoded prompts of a backbone depend on, except their texts and the dtype."""
    changed = {name: v for name, v in parameters.items() if v != spec.parameters[name].default}
    return f"{spec.name} {spec.version} {_ask(spec, 'encoder_key', weights, str, **changed)}"


def read_reduction(backbone: Any, who: str) -> str:
    """Return a likelihood's declared reduction; raise PluginError if it is unknown or missing."""
    with guard(who, "reading its reduction"):
        reduction: Any = getattr(backbone, "reduction", None)
    if reduction not in REDUCTIONS:
        raise PluginError(
            who, f"reduction must be one of {', '.join(REDUCTIONS)}, got {one_line(reduction)}"
        )
    return str(reduction)


def _ask(
    spec: BackboneSpec,
    method: str,
    weights: Any,
    plain: Callable[[Any], T],
    *arguments: Any,
    **keywords: Any,
) -> T:
    """Return what a method of the class, or its default in the contract, returns.

    `plain` validates the result and converts it to JSON values.
    """

    def ask() -> T:
        backbone_class = with_defaults(load_target(spec), Backbone)
        with guard(spec.label, f"{method}()"):
            return plain(getattr(backbone_class, method)(weights, *arguments, **keywords))

    downloads = method == "check_weights" and getattr(weights, "revision", None)
    if spec.objects or downloads or getattr(weights, "is_partial", False):
        return ask()
    of_weights = getattr(weights, "fingerprint", None)
    question = f"{method} {of_weights} {arguments} {sorted(keywords.items())}"
    return remember(spec, question, ask, _shipped_with(spec, weights))


def _shipped_with(spec: BackboneSpec, weights: Any) -> Path | None:
    """Return the file of answers beside the weights, if they are in the package that has them."""
    package, _, folder = (spec.weights or "").partition(":")
    if not folder or weights is None or (found := find_spec(package)) is None:
        return None
    file = Path(str(found.origin)).resolve().parent / f"{folder}{SHIPPED}"
    return file if str(file) == weights.location + SHIPPED else None


def _ask_number(
    spec: BackboneSpec, method: str, weights: Any, *arguments: Any, **keywords: Any
) -> float | None:
    def plain(number: Any) -> float | None:
        if number is None:
            return None
        value = float(number)
        if not (value > 0 and isfinite(value)):
            problem = f"must return a positive number or None, got {one_line(number)}"
            raise PluginError(spec.label, f"{method}() {problem}")
        return value

    return _ask(spec, method, weights, plain, *arguments, **keywords)
