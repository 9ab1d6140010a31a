"""Build a folder's pipeline with its modules on torch's meta device, so no weights are loaded.

The pipeline can be called. Each module moves its inputs to the meta device, where only shapes and
dtypes are computed, and returns zeros on the CPU. So all other code of the pipeline runs on real
tensors.
"""

import copy
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, wraps
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.inputs.weights import HAND_OVER, Weights
from bench.machine.libraries.private_torch import has_modes, tree_flatten, tree_map
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._pipelines.gate import class_problem, network_of
from bench_plugins.backbones._pipelines.runner import embeds_guidance
from bench_plugins.backbones._weights.checkpoint import check_headers
from bench_plugins.backbones._weights.components import (
    AUTOENCODER,
    NETWORKS,
    PIPELINE_INDEX,
    build_on_meta,
    cast,
    dtype_of,
    make_pipeline,
    pipeline_class,
    read_index,
)

_AUTOCAST_LOCK = RLock()


@dataclass(frozen=True)
class EmptyPipeline:
    """A folder's pipeline on the meta device.

    Attributes:
        classes: the classes of its components with tensors.
        runs: whether its code is expected to run without values: its class is declared, and only
            the folder's tensors are loaded.
    """

    weights: Weights
    pipe: Any
    classes: Mapping[str, Any]
    runs: bool

    @property
    def encoders(self) -> list[str]:
        """The names of the text encoders."""
        return [name for name in self.classes if name not in (AUTOENCODER, *NETWORKS)]

    @property
    def is_guidance_distilled(self) -> bool:
        """Whether the network is a UNet that takes the guidance scale as an input."""
        return "unet" in self.classes and embeds_guidance(network_of(self.pipe))

    def placeholders(self, names: Iterable[str]) -> dict[str, Any]:
        """Return modules that raise UserError if they are called, as they have no values."""
        return {name: _placeholder(self.weights, name, getattr(self.pipe, name)) for name in names}

    def check_headers(self, weights: Weights, left_out: Collection[str] = ()) -> None:
        """Raise UserError unless files can hold all components' tensors but of those `left_out`."""
        modules = {name: getattr(self.pipe, name) for name in self.classes if name not in left_out}
        weights.prefetch(
            file
            for name, module in modules.items()
            for file in weights.model_files(name, half=module.dtype == torch.float16)
        )
        for name, module in modules.items():
            check_headers(weights, name, module)


@lru_cache(maxsize=8)
def build(
    weights: Weights, pipelines: tuple[str, ...], dtype: torch.dtype, omitted: frozenset[str]
) -> EmptyPipeline:
    """Return a folder's pipeline with its modules on the meta device; see `read_index`.

    Modules are in the dtypes of `dtype_of`; `omitted` ones are not built. The tensor files are not
    checked. Raises UserError if a component is missing, damaged, of an unexpected class, or
    quantised, or pipelines of its class cannot be used.
    """
    index = read_index(weights, pipelines)
    pipeline_cls = pipeline_class(weights, index)
    if problem := class_problem(pipeline_cls):
        name = pipeline_cls.__name__
        raise weights.error(
            PIPELINE_INDEX, f"has _class_name {name!r}, which cannot be used: {problem}"
        )
    classes: dict[str, Any] = {}

    def model_of(name: str, component_cls: Any) -> nn.Module:
        classes[name] = component_cls
        module = build_on_meta(weights, name, component_cls)
        return _with_meta_forward(cast(module, dtype_of(name, component_cls, dtype)))

    pipe = make_pipeline(weights, pipeline_cls, index, omitted, model_of)
    is_whole = not (weights.loras or weights.file)
    return EmptyPipeline(
        weights, pipe, classes, is_whole and facts_of(type(pipe).__name__) is not None
    )


def _with_meta_forward(module: nn.Module) -> nn.Module:
    """Wrap the methods of a meta module, in place, so that they take and return CPU tensors."""
    config: Any = module.config
    if getattr(config, "use_cache", False):  # older transformers read values of the cache
        config.use_cache = False
    for name in ("forward", "encode"):
        if (method := getattr(module, name, None)) is not None:
            setattr(module, name, _run_on_meta(module, method))
    return module


def replaced(pipe: Any, components: Mapping[str, Any]) -> Any:
    """Return a pipeline, with components in place of its own."""
    for name, component in components.items():
        setattr(pipe, name, component)
    return pipe


def _placeholder(weights: Weights, name: str, module: nn.Module) -> nn.Module:
    """Return a copy of a meta module that raises UserError if it is called."""
    empty, problem = copy.copy(module), "is used by the pipeline at a stage without its weights"

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise weights.error(f"{name}/", f"{problem}: {HAND_OVER}")

    vars(empty).update(dict.fromkeys(("forward", "encode", "decode"), refuse))
    return empty


def _run_on_meta(module: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method with its arguments moved to the meta device and its results to the CPU.

    It also stores the first result, still on the meta device, in `module.meta_output`. A backward
    pass starts from there. A result depends on the shapes and dtypes of the arguments alone, so
    those of a call that nothing observes (a gradient, a count of operations) are remembered.
    """
    results: dict[object, Any] = {}

    @wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        key = None if _is_observed() else _signature((arguments, keywords))
        if key in results:
            return _map_tensors(_zeros_like, results[key])
        with torch.device("meta"), _FalseOnMeta(), _no_autocast():
            output = method(*_map_tensors(_to_meta, arguments), **_map_tensors(_to_meta, keywords))
        if key is not None:
            results[key] = output
        module.__dict__["meta_output"] = output[0]
        return _map_tensors(_zeros_like, output)

    return call


def _is_observed() -> bool:
    """Return whether operations are recorded: for a gradient, or by a mode of torch."""
    return torch.is_grad_enabled() or has_modes()


def _signature(values: Any) -> object:
    """Return a key of what a result on the meta device depends on; None if there is none."""
    flat, structure = tree_flatten(values)
    key = tuple((v.shape, v.dtype) if isinstance(v, Tensor) else v for v in flat), str(structure)
    return key if all(isinstance(v, Hashable) for v in key[0]) else None


@contextmanager
def _no_autocast() -> Iterator[None]:
    """Disable `torch.autocast` on the meta device, where it fails.

    Older transformers call it with the device of their input.
    """
    with _AUTOCAST_LOCK:
        autocast: Any = torch.autocast

        def replacement(device_type: str, *arguments: Any, **keywords: Any) -> Any:
            if device_type == "meta":
                return nullcontext()
            return autocast(device_type, *arguments, **keywords)

        setattr(torch, "autocast", replacement)  # noqa: B010 - to mypy it is a class
        try:
            yield
        finally:
            setattr(torch, "autocast", autocast)  # noqa: B010


class _FalseOnMeta(TorchFunctionMode):
    """Makes meta tensors false in conditions, such as whether a mask is all ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__bool__ and args[0].is_meta:
            return False
        return func(*args, **(kwargs or {}))


def _to_meta(tensor: Tensor) -> Tensor:
    moved = tensor.detach().to("meta")
    return moved.requires_grad_(tensor.requires_grad)


def _zeros_like(tensor: Tensor) -> Tensor:
    return torch.zeros((), dtype=tensor.dtype, device="cpu").expand(tensor.shape)


def _map_tensors(function: Callable[[Tensor], Tensor], values: Any) -> Any:

    def apply(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if isinstance(getattr(leaf, "parameters", None), Tensor):  # a VAE's posterior
            return type(leaf)(function(leaf.parameters))
        return leaf

    return tree_map(apply, values)
