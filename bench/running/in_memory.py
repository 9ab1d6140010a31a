"""Backbones that the caller hands over as objects."""

from typing import Any
from weakref import WeakKeyDictionary

from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.errors import UserError
from bench.machine.environment import pick_device
from bench.running.prepare import NO_DATASET, AtHand, ask
from bench.running.settings import SETTINGS, RunConfig, Values, about
from bench.running.settings.fields import TF32

# Backbone → the settings that it was made from, which enter the identity of a run. An object's
# device and others are read from it for every run, because the user may change them.
_LOADED: WeakKeyDictionary[Any, Values] = WeakKeyDictionary()


def load_named(config: RunConfig) -> Any:
    """Make the backbone that settings name, and remember those of a run with it."""
    device = pick_device(config.device)
    run = ask(config.model_copy(update={"device": device}), AtHand(NO_DATASET))
    if run.absent is not None:
        raise run.absent
    parameters = {
        "device": device,
        "dtype": run.names.precision.dtype,
        **run.names.backbone_parameters,
    }
    backbone = make(run.names.backbone, run.weights, **parameters)
    named = {"backbone": config.backbone, "weights": config.weights}
    _LOADED[backbone] = {**named, "device": device, "dtype": str(run.names.precision)}
    return backbone


def take_object(thing: Any, **parameters: Any) -> Any:
    """Make a backbone from an object such as a diffusers pipeline, and remember its name.

    Raises UserError if no plugin accepts such an object.
    """
    names = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(thing).__mro__}
    specs = (spec for spec in load_plugins().backbones if names.intersection(spec.objects))
    if (spec := next(specs, None)) is None:
        raise UserError(
            f"backbone={type(thing).__name__}(…): expected a diffusers pipeline or a result of"
            " bench.load_backbone(NAME), so that the run can record what scored it."
        )
    backbone = make(spec, thing, **parameters)
    _LOADED[backbone] = {"backbone": spec.name, "weights": backbone.label}
    return backbone


def with_loaded(backbone: Any, settings: Values) -> tuple[Any, Values]:
    """Return the caller's object as a backbone, and `settings` with those it was made from.

    Raises UserError if the settings contradict each other or the object is not a backbone.
    """
    try:
        loaded = _LOADED.get(backbone)
    except TypeError:  # the object does not support weak references
        loaded = None
    if loaded is None:
        backbone = take_object(backbone)
        loaded = _LOADED[backbone]
    fixed = loaded if "device" in loaded else {**loaded, **backbone.settings}
    if settings.get("dtype") == TF32 and fixed["dtype"] == "float32":
        settings = {**settings, "dtype": None, "tf32": True}
    for name in about("network"):  # the precision can be changed after loading
        if SETTINGS[name].identity != "precision" and name not in fixed and settings.get(name):
            raise UserError(f"{name}= needs a backbone's name, not a loaded backbone.")
    for name, value in fixed.items():
        if settings.get(name) not in (None, value):
            raise UserError(
                f"{name}={settings[name]!r}: the backbone was loaded with {name}={value!r}."
            )
    return backbone, {**settings, **fixed}
