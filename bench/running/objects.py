"""Backbones that a caller of Python hands over: loaded by name, or objects that a plugin takes."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.errors import UserError
from bench.inputs.weights import resolve as resolve_weights
from bench.machine.environment import pick_device
from bench.running.parts.scorer import find_backbone, resolve_dtype
from bench.running.settings import RunConfig

# Backbone → the settings that it was made from: they are part of a run's identity.
_LOADED: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
OF_A_NAME = ("normalize", "resolution", "revision", "layout", "attention", "compile", "lora")


def load_named(name: str, weights: str | None, device: str | None, dtype: str | None) -> Any:
    """Return a backbone by its name or folder."""
    config = RunConfig(dataset="-", backbone=name, weights=weights)
    resolved = find_backbone(config, None, load_plugins())
    spec, source = resolved.spec, resolved.weights or resolved.spec.weights
    device, dtype = pick_device(device), resolve_dtype(dtype, spec, device)
    folder = resolve_weights(source, spec.revision) if source else None
    parameters = spec.resolve_parameters({})
    backbone = make(spec, folder, device=device, dtype=dtype, **parameters)
    _LOADED[backbone] = {"backbone": name, "weights": weights, "device": device, "dtype": dtype}
    return backbone


def take_object(thing: Any, **parameters: Any) -> Any:
    """Return the backbone that a plugin makes of an object, such as a pipeline of diffusers.

    Raises:
        UserError: no plugin takes such an object.
    """
    spec = _spec_of(thing)
    if spec is None:
        raise UserError(
            f"backbone={type(thing).__name__}(…): hand over a pipeline of diffusers, or what"
            " bench.load_backbone(NAME) returned, so that the run can say what scored it."
        )
    backbone = make(spec, thing, **parameters)
    _LOADED[backbone] = {"backbone": spec.name, "weights": backbone.label, **backbone.settings}
    return backbone


def _spec_of(thing: Any) -> BackboneSpec | None:
    kinds = {f"{k.__module__.partition('.')[0]}.{k.__name__}" for k in type(thing).__mro__}
    specs = (spec for spec in load_plugins().backbones if kinds.intersection(spec.objects))
    return next(specs, None)


def with_loaded(backbone: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a backbone that was handed over, and a run's settings with those of its making.

    Raises:
        UserError: they contradict each other, or it is no backbone.
    """
    try:
        made = _LOADED.get(backbone)
    except TypeError:  # nothing that a weak reference can be made to
        made = None
    if made is None:
        backbone = take_object(backbone)
        made = _LOADED[backbone]
    for name in OF_A_NAME:
        if settings.get(name):
            raise UserError(f"{name}= goes with a backbone's name, not with one that is loaded.")
    for name in ("weights", "device", "dtype"):
        if settings.get(name) not in (None, made[name]):
            raise UserError(f"The backbone was loaded with {name}={made[name]!r}.")
    return backbone, {**settings, **made}
