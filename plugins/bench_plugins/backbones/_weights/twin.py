"""Name what differs between a component in memory and a fresh one made from its own config.

What does not differ needs no name: the config and the versions of the libraries determine it. What
differs is written down, to be part of an identity. What cannot be written down, which is code of
the user's own, is refused. Parameters and buffers are not compared: their values are hashed.
"""

import copy
import functools
import hashlib
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.errors import UserError
from bench.machine.libraries import private_accelerate, private_diffusers, private_peft
from bench.machine.libraries.private_torch import (
    attribute_names,
    compiled_call,
    has_gradient_hooks,
    has_own_attention,
    hooks_of,
    is_dropout,
    own_tensors,
    unwrapped,
)
from bench_plugins.backbones._weights.checkpoint import LOADING

# Libraries whose code is named by their versions, which a run records.
NAMED_LIBRARIES = frozenset((
    "accelerate", "bitsandbytes", "diffusers", "gguf", "huggingface_hub", "numpy", "optimum",
    "peft", "PIL", "safetensors", "tokenizers", "torch", "torchao", "torchvision", "transformers",
    "typing_extensions",
))  # fmt: skip
# Attributes that say how a component was loaded, where it is, how much memory it takes and what it
# was used for. Numbers are the same with all their values: `tests/plugins/backbones/test_twin.py`.
ALIKE = frozenset((
    "_internal_dict", "_is_hf_initialized", "_hf_peft_config_loaded", "peft_config",
    "_safe_fusing", "lora_scale",
    "name_or_path", "generation_config", "hf_device_map", "_weight_conversions", "_use_kernels",
    "_output_capturing_hooks_installed", "_hf_hook", "_old_forward", "_diffusers_hook",
    "gradient_checkpointing", "_gradient_checkpointing_func", "use_slicing", "fused_projections",
    "slice_size", "sliceable_head_dim", "_require_grads_hook", "_require_grads_hooks",
    "_is_torch_compile", "_kernels_mode",
    # frames that were decoded before, of autoencoders of videos
    "_conv_num", "_conv_idx", "_feat_map", "_enc_conv_num", "_enc_conv_idx", "_enc_feat_map",
))  # fmt: skip
ALIKE_IN_CONFIGS = frozenset((
    "_name_or_path", "_commit_hash", "architectures", "dtype", "torch_dtype",
    "transformers_version", "_attn_implementation_autoset",
))  # fmt: skip
FREEU = frozenset(("s1", "s2", "b1", "b2"))  # None once it is switched off
# Attention processors of diffusers that compute the same, one with less memory than another.
SAME_ATTENTION = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor")
BACKENDS = ("_attention_backend", "_attn_implementation_internal")  # attributes of attention
SAME_BACKENDS = ("None", "native", "eager", "sdpa")
# Modules that compute the same in training mode; dropout that is not 0 is refused elsewhere.
SAME_IN_TRAINING = tuple(
    f"torch.nn.modules.{name}" for name in ("container", "conv", "dropout", "linear", "sparse")
)
PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes)
AS_TEXT = (Enum, Path, torch.dtype, torch.layout, torch.memory_format, torch.Size)
PLACES = (torch.device, torch.Generator)  # where numbers are computed
# Modules of hooks that move and cast weights. What a module computes is the same with them.
MOVING_HOOKS = (
    "accelerate.hooks",
    "diffusers.hooks.group_offloading",
    "diffusers.hooks.layerwise_casting",
)
HOOKING_LIBRARIES = ("accelerate.", "diffusers.", "peft.", "torch.", "transformers.")
ABSENT = "absent"  # in place of a value that only a fresh object has


class AlteredError(UserError):
    """A component is altered by something that no identity covers."""

    def __init__(self, where: str, alteration: str) -> None:
        super().__init__(
            f"{where} is altered by {alteration}. A run's identity does not cover this: remove it"
            " first."
        )


class _Empty(TorchFunctionMode):
    """Makes tensors without values on the meta device, and all others on the CPU.

    So parameters take no memory, and plain tensors, such as tables of positions, have their values.
    Parameters are not initialised, which takes long and changes nothing.
    """

    _MAKERS = (torch.empty, torch.empty_like, torch.rand, torch.randn, torch.randn_like)
    _FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = {**(kwargs or {}), **({"device": "meta"} if func in self._MAKERS else {})}
        if func in self._FILLS or getattr(func, "__module__", "") == nn.init.__name__:
            filled: Tensor = args[0] if args else keywords["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **keywords)


def fresh(component: Any) -> Any:
    """Return a component made from the config of another, without the values of its parameters.

    It has the same adapters. None if its class needs more than a config.
    """
    component_cls: Any = type(component)
    config = copy.deepcopy(getattr(component, "config", None))
    is_diffusers = isinstance(config, Mapping) and hasattr(component_cls, "from_config")
    with LOADING, _Empty(), torch.no_grad():
        try:
            twin = (component_cls.from_config if is_diffusers else component_cls)(config)
            private_peft.inject(twin, component)
        except Exception:  # whatever a class raises
            return None
    return twin.eval()


def fresh_pipeline(pipe: Any) -> Any:
    """Return a pipeline made of the components and settings of another; None if that fails."""
    names = inspect.signature(type(pipe).__init__).parameters.keys()
    settings = {name: value for name, value in pipe.config.items() if name in names}
    with LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of, it did when the pipeline was made
        try:
            return type(pipe)(**{**settings, **pipe.components})
        except Exception:  # whatever a class raises
            return None


def alterations(own: Any, twin: Any, name: str, alike: AbstractSet[str] = ALIKE) -> dict[str, Any]:
    """Return path → value of what differs between an object, called `name`, and its twin.

    Values are plain. Without a twin, all of the object's are among them. Attributes in `alike` are
    not compared. Raises AlteredError if code that is not a library's alters what it computes.
    """
    checked: set[Any] = set()
    values = dict(_Writer(alike, checked).written(name, own))
    wanted = {} if twin is None else dict(_Writer(alike, checked).written(name, twin))
    different = {path: v for path, v in values.items() if path not in wanted or wanted[path] != v}
    different |= dict.fromkeys(wanted.keys() - values.keys(), ABSENT)
    if isinstance(own, nn.Module) and (states := _mixed_adapters(own)):
        different[f"{name}.adapters"] = states
    return different


def process_alterations() -> dict[str, Any]:
    """Return what alters all modules of this process. Raises AlteredError if it has no name."""
    if not has_own_attention():
        raise AlteredError("torch's scaled_dot_product_attention", "another function")
    _check_functions(nn.functional)
    backend = private_diffusers.attention_backend()
    return {} if backend in SAME_BACKENDS else {"attention": backend}


def _mixed_adapters(module: nn.Module) -> list[Any]:
    """Return the state of every adapter in every layer, unless it is the same in all layers."""
    states = list(private_peft.states(module))
    ways = {(s.adapter, s.state, None if s.state == "off" else s.scale) for s in states}
    is_simple = len(ways) == len({s.adapter for s in states})
    return [] if is_simple and not any(s.state == "merged, off" for s in states) else states


@dataclass(frozen=True)
class _Writer:
    """Writes an object down as pairs of a path and a plain value. Checks all code on the way."""

    alike: AbstractSet[str]
    checked: set[Any]  # classes and modules
    places: dict[int, str] = field(default_factory=dict)  # of objects: where each was first met
    kept: list[Any] = field(default_factory=list)  # so that no other object gets their number

    def written(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield path → value of an object and of all that it holds."""
        value = unwrapped(value)
        if isinstance(value, PLAIN_TYPES):
            yield path, value if value == value else "NaN"
        elif isinstance(value, AS_TEXT):
            yield path, str(value)
        elif isinstance(value, Tensor | np.ndarray | np.generic):
            yield path, _content(value)
        elif isinstance(value, type):
            check_class(path, value, self.checked)
            yield path, _name(value)
        elif isinstance(value, FunctionType | BuiltinFunctionType | np.ufunc):
            check_function(path, value)
            yield path, _name(value)
            for cell in getattr(value, "__closure__", None) or ():
                yield from self.written(f"{path}.closure", cell.cell_contents)
        elif id(value) in self.places:
            yield path, f"as {self.places[id(value)]}"
        elif not isinstance(value, PLACES):
            self.places[id(value)] = path
            self.kept.append(value)
            check_class(path, type(value), self.checked)
            yield path, _class_name(value)
            parts = _parts_of_module(path, value) if isinstance(value, nn.Module) else _parts(value)
            for name, part in sorted(parts.items()):
                if not self._is_alike(value, name, part):
                    yield from self.written(f"{path}.{name}", part)

    def _is_alike(self, owner: Any, name: str, value: Any) -> bool:
        """Return whether an attribute does not matter, or is what a fresh object has without it."""
        return (
            name in self.alike
            or (name in ALIKE_IN_CONFIGS and hasattr(owner, "to_dict"))
            or (name in FREEU and value is None)
            or (name in BACKENDS and str(getattr(value, "value", value)) in SAME_BACKENDS)
            or (  # hooks store methods of the class as attributes
                isinstance(value, MethodType)
                and value.__self__ is owner
                and value.__func__ is getattr(type(owner), name, None)
            )
        )


def _parts(value: Any) -> dict[str, Any]:
    """Return what an object holds, by name."""
    if isinstance(value, MethodType):
        return {"__func__": value.__func__, "__self__": value.__self__}
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, AbstractSet):
        return {str(part): None for part in value}
    if isinstance(value, Sequence):
        return {str(index): part for index, part in enumerate(value)}
    slots = {name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())}
    parts = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**parts, **getattr(value, "__dict__", {})}


def _parts_of_module(path: str, module: nn.Module) -> dict[str, Any]:
    """Return a module's attributes and parts, its forward below hooks, and odd tensors' classes.

    Raises AlteredError if a hook of another kind than those that move and cast weights, or chance,
    alters what it computes.
    """
    is_adapted = private_peft.is_adapter_layer(module)
    parts = private_peft.attributes(module) if is_adapted else vars(module)
    parts = {name: parts[name] for name in attribute_names(parts)} | dict(module.named_children())
    for name, tensor in own_tensors(module):
        if type(tensor) not in (type(None), Tensor, nn.Parameter):
            parts[f"class of {name}"] = type(tensor)
        if tensor is not None and has_gradient_hooks(tensor):
            raise AlteredError(f"{path}.{name}", "a hook of its gradient")
    parts |= compiled_call(module)
    # Of attention, dropout is a number.
    rate = vars(module).get("p" if is_dropout(module) else "dropout")
    if module.training and isinstance(rate, int | float) and rate:
        raise AlteredError(path, "dropout in training mode")
    is_alike = is_adapted or type(module).__module__.startswith(SAME_IN_TRAINING)
    if module.training and not is_alike:
        parts["training"] = True
    if hooks := _library_hooks(path, module):
        parts["hooks"] = hooks
    for below in (private_diffusers.own_forward, private_accelerate.own_forward):
        if (forward := below(module)) is not None:
            parts["forward"] = forward
    return parts


def _library_hooks(path: str, module: nn.Module) -> list[Any]:
    """Return torch's own hooks, such as weight normalisation's, which alter what is computed.

    Those of other libraries move, cast or observe. Raises AlteredError for any other hook.
    """
    for hook in (
        *private_accelerate.hooks_of(module),
        *private_diffusers.hooks_of(module).values(),
    ):
        if not type(hook).__module__.startswith(MOVING_HOOKS):
            raise AlteredError(path, type(hook).__name__)
    by_library = {hook: str(getattr(hook, "__module__", "")) for hook in hooks_of(module)}
    for hook, library in by_library.items():
        if not library.startswith(HOOKING_LIBRARIES):
            raise AlteredError(path, f"the hook {getattr(hook, '__name__', type(hook).__name__)}")
    return [hook for hook, library in by_library.items() if library.startswith("torch.")]


def _content(values: Any) -> str:
    """Return the type and shape of a plain tensor or array, and the hash of its values."""
    hashed = ""
    if not (isinstance(values, Tensor) and values.is_meta):
        plain = torch.as_tensor(values).detach().cpu().contiguous()
        raw: Any = plain.view(-1).view(torch.uint8).numpy() if plain.numel() else b""
        hashed = hashlib.sha256(raw).hexdigest()
    return f"{values.dtype} {list(values.shape)} {hashed}"


def _class_name(value: Any) -> str:
    kind = type(value)
    is_same = kind.__name__ in SAME_ATTENTION and kind.__module__.startswith("diffusers.")
    return SAME_ATTENTION[0] if is_same else _name(kind)


def _name(value: Any) -> str:
    """Return the qualified name of a class or function."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"


def check_class(path: str, kind: type, checked: set[Any]) -> None:
    """Raise AlteredError unless a class and its bases are a library's, with their own methods.

    What is in `checked` is not checked again, and what was checked joins it: classes and modules.
    """
    for base in kind.__mro__ if kind not in checked else ():
        if base in checked or _is_of_python(base.__module__):
            continue
        checked.add(base)
        held: Any = sys.modules.get(base.__module__)
        for name in base.__qualname__.split("."):
            held = getattr(held, name, None)
        is_held = held is base or "<locals>" in base.__qualname__  # made by a library's function
        if not is_held or base.__module__.partition(".")[0] not in NAMED_LIBRARIES:
            raise AlteredError(path, f"the class {_name(base)}, which is no library's")
        for name, method in vars(base).items():
            what = f"the method {name} of {_name(base)}, which is another function"
            for function in _functions_of(method):
                owner, _, of_class = function.__qualname__.rpartition(".")
                is_moved = (
                    of_class
                    and owner
                    and "<" not in owner
                    and not any(owner == other.__qualname__ for other in base.__mro__)
                )
                is_made = name.startswith("__") and "__dataclass_fields__" in vars(base)
                if is_moved or not (is_made or _is_in(function, _package_folders())):
                    raise AlteredError(path, what)
        if (module := sys.modules[base.__module__]) not in checked:
            checked.add(module)
            _check_functions(module)


def check_function(path: str, function: Any, folders: tuple[str, ...] = ()) -> None:
    """Raise AlteredError unless the code of a function is in the files of a library."""
    if not all(_is_in(inner, folders or _library_folders()) for inner in _functions_of(function)):
        raise AlteredError(path, f"the function {_name(function)}, which is no library's")


def _check_functions(module: ModuleType) -> None:
    """Raise AlteredError if a function was replaced in a module of a library.

    It may come from any package that is installed, because modules import from others.
    """
    folders = _package_folders()
    for name, value in vars(module).items():
        if isinstance(value, FunctionType):
            check_function(f"{module.__name__}.{name}", value, folders)


def _functions_of(value: Any) -> Iterator[FunctionType]:
    """Yield the functions in a method or property, and those that decorators hold."""
    for part in (value.fget, value.fset) if isinstance(value, property) else (value,):
        function = getattr(part, "__func__", getattr(part, "func", part))
        while function is not None:
            if isinstance(function, FunctionType):
                yield function
            function = getattr(function, "__wrapped__", None)


def _is_of_python(module: str) -> bool:
    root = module.partition(".")[0]
    return root == "builtins" or root in sys.stdlib_module_names


def _is_in(function: FunctionType, folders: tuple[str, ...]) -> bool:
    return function.__code__.co_filename.startswith((*folders, "<frozen "))


@functools.cache
def _package_folders() -> tuple[str, ...]:
    """Return the folders of the libraries' code, of Python's, and of all installed packages."""
    return (*_library_folders(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


@functools.cache
def _library_folders() -> tuple[str, ...]:
    """Return the folders of the libraries' code and of Python's."""
    specs = [spec for name in NAMED_LIBRARIES if (spec := find_spec(name)) is not None]
    folders = [folder for spec in specs for folder in spec.submodule_search_locations or ()]
    single = [str(spec.origin) for spec in specs if not spec.submodule_search_locations]
    return (*(f"{folder}/" for folder in folders), *single, sysconfig.get_path("stdlib"))
