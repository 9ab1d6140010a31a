"""Ask the class of a backbone for facts, for which no backbone object is needed.

What it answered is remembered (`bench.discovery.answers`), except about an object in memory, about
weights whose files the Hub never listed, and the check of weights on the Hub, which fetches them.
"""

import base64
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from inspect import getattr_static
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

import numpy as np

from bench.contracts.backbone import Backbone
from bench.contracts.decision import Reduction
from bench.contracts.levels import Column, Levels
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec
from bench.discovery import targets
from bench.discovery.answers import ANSWERS_SUFFIX, remember
from bench.discovery.finding import OWN_DISTRIBUTION
from bench.discovery.guard import checked_answer
from bench.discovery.loading import load_plugins
from bench.discovery.sources import source_hashes
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
    name, weights = method.__name__, next(iter(arguments), None)
    kind = get_type_hints(method, localns={"Levels": Levels}, include_extras=True)["return"]

    def ask() -> Any:
        reported = getattr(with_defaults(load_target(spec), Backbone), name)
        answer = partial(reported, *arguments, **keywords)
        return _plain(checked_answer(spec.label, f"{name}()", kind, answer))

    fetches = name == "check_weights" and getattr(weights, "revision", None)
    if spec.objects or fetches or getattr(weights, "is_partial", False):
        result: R = _revived(name, ask())
        return result
    settings = [arguments[1:], sorted(keywords.items())]
    question = f"{name} {getattr(weights, 'fingerprint', None)} {settings}"
    result = _revived(name, _remember(spec, question, ask, weights))
    return result


def _plain(value: Any) -> Any:
    """Return a fact as JSON values, from which `_revived` makes it again."""
    if not isinstance(value, Levels):
        return list(value) if isinstance(value, tuple) else value
    return {name: _packed(column) for name, column in value.columns().items()}


def _revived(name: str, value: Any) -> Any:
    if name == "level_table" and value is not None:
        return Levels(**{column: _unpacked(text) for column, text in value.items()})
    return tuple(value) if isinstance(value, list) else value


def _packed(column: Column) -> str:
    """Return a column as text: its dtype, and its compressed values in base64."""
    return f"{column.dtype.str} {base64.b64encode(zlib.compress(column.tobytes())).decode()}"


def _unpacked(text: str) -> Column:
    dtype, _, values = text.partition(" ")
    return np.frombuffer(zlib.decompress(base64.b64decode(values)), dtype)


def _remember(spec: BackboneSpec, question: str, ask: Callable[[], R], weights: Any = None) -> R:
    """Return the remembered answer, also one that comes with the weights in the spec's package."""
    package, _, folder = (spec.weights or "").partition(":")
    shipped = None
    if folder and (module := find_spec(package)) is not None:
        shipped = Path(str(module.origin)).resolve().parent / f"{folder}{ANSWERS_SUFFIX}"
        if weights is not None and str(shipped) != weights.location + ANSWERS_SUFFIX:
            shipped = None  # these are others
    return remember(spec, question, ask, shipped)


def has_flag(spec: BackboneSpec, name: str) -> bool:
    """Return whether a class attribute of the backbone is true, such as `can_linearise`."""
    return _remember(spec, name, lambda: getattr_static(load_target(spec), name, False) is True)


def has_own(spec: BackboneSpec, default: Callable[..., Any]) -> bool:
    """Return whether the backbone's class has its own version of `default`, a contract's method."""
    question = f"has its own {default.__name__}"
    return _remember(spec, question, lambda: targets.offers(load_target(spec), default))


def reduction_of(spec: BackboneSpec) -> Reduction:
    """Return how the class of a likelihood reduces draws; see `read_reduction`."""
    return _remember(spec, "reduction", lambda: read_reduction(load_target(spec), spec.label))


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


def code_of(spec: BackboneSpec) -> str:
    """Return the hash of a plugin's code, which may change without its version; "" for ours."""
    plugins = load_plugins()
    owner = plugins.backbones.owner(spec.name) or OWN_DISTRIBUTION
    return "" if owner == OWN_DISTRIBUTION else source_hashes(plugins, [owner])[owner]


def encoder_key(spec: BackboneSpec, weights: Any, parameters: Parameters) -> str:
    """Return what the encoded prompts of a backbone depend on, except their texts and the dtype."""
    changed = {name: v for name, v in parameters.items() if v != spec.parameters[name].default}
    own = fact(spec, Backbone.encoder_key, weights, **changed)
    return f"{spec.name} {spec.version} {own}{code_of(spec)}"


def read_reduction(backbone: Any, who: str) -> Reduction:
    """Return a likelihood's declared reduction; raise PluginError if it is unknown or missing."""
    return checked_answer(who, "reduction", Reduction, lambda: backbone.reduction)
