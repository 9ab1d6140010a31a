"""A folder's pipeline without its tensors, which can be driven, checked and counted.

Its modules are on torch's meta device: their inputs are moved there, and their outputs are zeros on
the CPU. So the rest of the pipeline's own code runs on numbers.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from threading import RLock
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map, tree_map_only

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import ModelPart, build_empty, find_tensors, first_line
from bench_plugins.backbones._parts import (
    NETWORKS,
    PIPELINE_INDEX,
    model_part,
    part_class,
    tokenizer_of,
)

AUTOENCODER = "vae"
_AUTOCAST_LOCK = RLock()
# Parts that look at pictures, of which none are made.
PICTURE_PARTS = ("safety_checker", "feature_extractor", "image_encoder", "add_watermarker")


def hollow_pipeline(
    weights: Weights,
    kind: Any,
    index: Mapping[str, Any],
    dtype: torch.dtype,
    without: Collection[str],
) -> tuple[Any, dict[str, Any]]:
    """Return a folder's pipeline whose modules have no tensors, and the classes of its modules.

    Whether the files hold these tensors is not checked; see `check_tensors`.

    Args:
        weights: the folder.
        kind: the pipeline's class.
        index: the content of its `model_index.json`.
        dtype: of the modules; that of the autoencoder is float32.
        without: parts that are left out.

    Raises:
        UserError: a part is missing, damaged, of another kind, or quantised.
    """
    takes = inspect.signature(kind.__init__).parameters
    parts: dict[str, Any] = {name: None for name in (*PICTURE_PARTS, *without) if name in takes}
    if "requires_safety_checker" in takes:
        parts["requires_safety_checker"] = False
    models: dict[str, ModelPart] = {}
    classes: dict[str, Any] = {}
    for name in sorted(takes.keys() - parts.keys() - {"self"}, key=lambda n: ("token" in n, n)):
        default = takes[name].default
        value = index.get(name, default)
        if value == [None, None] or (value is None and default is None):
            parts[name] = None
        elif not isinstance(value, list) and default is not inspect.Parameter.empty:
            parts[name] = value
        elif name == "scheduler":
            parts[name] = read_scheduler(weights, index)
        elif "token" in name or "processor" in name:
            encoder = models.get(name.replace("tokenizer", "text_encoder"))
            made = part_class(weights, kind, index, name)
            parts[name] = tokenizer_of(weights, name, made, encoder)
        else:
            classes[name] = part_class(weights, kind, index, name)
            models[name], config = model_part(weights, name, classes[name])
            module = build_empty(weights, models[name], config)
            module.to(torch.float32 if name == AUTOENCODER else dtype)
            parts[name] = _hollow(module, once=name not in (AUTOENCODER, *NETWORKS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about sampling with older configs
            return kind(**parts), classes
    except Exception as error:  # whatever diffusers raises where parts do not fit
        raise weights.error(PIPELINE_INDEX, f"makes no pipeline: {first_line(error)}") from error


def read_scheduler(weights: Weights, index: Mapping[str, Any]) -> Any:
    """Return the scheduler that a folder describes.

    Raises:
        UserError: diffusers cannot make it.
    """
    name = "scheduler/scheduler_config.json"
    config = weights.read(name)
    made = index.get("scheduler") or [None, config.get("_class_name")]
    try:
        return getattr(diffusers, str(made[1])).from_config(config)
    except Exception as error:
        raise weights.error(name, f"describes no scheduler: {first_line(error)}") from error


def check_tensors(weights: Weights, pipe: Any, classes: Mapping[str, Any]) -> None:
    """Refuse files that do not hold the tensors of a hollow pipeline's parts (UserError)."""
    for name, kind in classes.items():
        part, _ = model_part(weights, name, kind)
        if part.library is None:
            module = getattr(pipe, name)
            find_tensors(weights, part, module, module.dtype)


def _hollow(module: nn.Module, once: bool) -> nn.Module:
    """Return the module, changed to take and return tensors of the CPU.

    With `once`, it is computed a single time for inputs of the same shapes. The network and the
    autoencoder, whose operations are counted, are computed every time.
    """
    config: Any = module.config
    if getattr(config, "use_cache", False):  # older transformers read values of the cache
        config.use_cache = False
    for name in ("forward", "encode"):
        if (called := getattr(module, name, None)) is not None:
            hollow = _without_values(module, called)
            module.__dict__[name] = _remembered(hollow) if once else hollow
    return module


def _remembered(called: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its results remembered by the shapes of its tensors."""
    results: dict[str, Any] = {}

    def call(*arguments: Any, **keywords: Any) -> Any:
        shapes = tree_map_only(Tensor, lambda t: (t.dtype, t.shape), (arguments, keywords))
        if (key := repr(shapes)) not in results:
            results[key] = called(*arguments, **keywords)
        return copy.copy(results[key])

    return wraps(called)(call)


def _without_values(module: nn.Module, called: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(called)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with torch.device("meta"), _NoValues(), _no_autocast():
            output = called(*_mapped(_on_meta, arguments), **_mapped(_on_meta, keywords))
        module.__dict__["answer"] = output[0]  # for a backward pass
        return _mapped(_zeros, output)

    return call


@contextmanager
def _no_autocast() -> Iterator[None]:
    """Skip `torch.autocast` on the meta device, where it fails; older transformers use it there."""
    with _AUTOCAST_LOCK:
        autocast: Any = torch.autocast

        def chosen(device_type: str, *arguments: Any, **keywords: Any) -> Any:
            if device_type == "meta":
                return nullcontext()
            return autocast(device_type, *arguments, **keywords)

        setattr(torch, "autocast", chosen)  # noqa: B010 - mypy takes it for a class
        try:
            yield
        finally:
            setattr(torch, "autocast", autocast)  # noqa: B010


class _NoValues(TorchFunctionMode):
    """Answers false where code reads a truth value, such as whether a mask hides nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__bool__ and args[0].is_meta:
            return False
        return func(*args, **(kwargs or {}))


def _on_meta(tensor: Tensor) -> Tensor:
    moved = tensor.detach().to("meta")
    return moved.requires_grad_(tensor.requires_grad)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros((), dtype=tensor.dtype, device="cpu").expand(tensor.shape)


def _mapped(change: Callable[[Tensor], Tensor], values: Any) -> Any:
    """Return a module's arguments or results with every tensor changed."""

    def changed(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return change(leaf)
        if isinstance(getattr(leaf, "parameters", None), Tensor):  # a posterior
            return type(leaf)(change(leaf.parameters))
        return leaf

    return tree_map(changed, values)
