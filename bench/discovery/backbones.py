"""Ask the class of a backbone for facts, for which no backbone object is needed."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import getattr_static
from typing import Any, ParamSpec, TypeVar, get_type_hints

from bench.contracts.backbone import Backbone
from bench.contracts.decision import Reduction
from bench.contracts.levels import Levels
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec
from bench.discovery import targets
from bench.discovery.finding import OWN_DISTRIBUTION
from bench.discovery.guard import checked_answer
from bench.discovery.loading import load_plugins
from bench.discovery.sources import source_hashes
from bench.discovery.targets import load_target, with_defaults
from bench.errors import PluginError
from bench.machine.stages import stage

P = ParamSpec("P")
R = TypeVar("R")


def fact(spec: BackboneSpec, method: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """Return what a backbone's class reports, or else the default of the contract.

    `method` is a static method of the contract, such as `Backbone.level_table`; what the class
    returns must have the annotated type. Raises PluginError if it has another, or the class fails.
    A UserError of the class, such as about unsuitable weights, is raised unchanged.
    """
    # The contract imports Levels for type checkers only, so its annotations cannot find it.
    hints = get_type_hints(method, localns={"Levels": Levels}, include_extras=True)
    own = getattr(with_defaults(load_target(spec), Backbone), method.__name__)
    ask = partial(own, *arguments, **keywords)
    with stage(f"Inspecting {spec.kind} {spec.name}"):  # may build its network without weights
        answer: R = checked_answer(spec.label, f"{method.__name__}()", hints["return"], ask)
    return answer


def has_flag(spec: BackboneSpec, name: str) -> bool:
    """Return whether a class attribute of the backbone is true, such as `can_linearise`."""
    return getattr_static(load_target(spec), name, False) is True


def has_own(spec: BackboneSpec, default: Callable[..., Any]) -> bool:
    """Return whether the backbone's class has its own version of `default`, a contract's method."""
    return targets.offers(load_target(spec), default)


def reduction_of(spec: BackboneSpec) -> Reduction:
    """Return how the class of a likelihood reduces draws; see `read_reduction`."""
    return read_reduction(load_target(spec), spec.label)


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
    """Return the hash of the code of a backbone's plugin; "" for the toolkit's own plugins.

    A plugin's code may change while its version does not.
    """
    plugins = load_plugins()
    owner = plugins.backbones.owner(spec.name) or OWN_DISTRIBUTION
    return "" if owner == OWN_DISTRIBUTION else source_hashes(plugins, [owner])[owner]


def encoder_key(spec: BackboneSpec, weights: Any, parameters: Parameters) -> str:
    """Return what the encoded prompts of a backbone depend on, except their texts and the dtype."""
    changed = {
        name: value for name, value in parameters.items() if value != spec.parameters[name].default
    }
    own = fact(spec, Backbone.encoder_key, weights, **changed)
    return f"{spec.name} {spec.version} {own}{code_of(spec)}"


def read_reduction(backbone: Any, who: str) -> Reduction:
    """Return a likelihood's declared reduction; raise PluginError if it is unknown or missing."""
    return checked_answer(who, "reduction", Reduction, lambda: backbone.reduction)
