"""Names of torch that it does not document, seen in 2.6 to 2.13."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))  # tensors, parts, hooks, its mode


def hooks_of(module: nn.Module) -> Iterator[Any]:
    """Yield the hooks of a module's forward and backward, with those of all modules."""
    for when in ("forward", "forward_pre", "backward", "backward_pre"):
        yield from getattr(module, f"_{when}_hooks").values()
        yield from getattr(_module, f"_global_{when}_hooks").values()


def attribute_names(names: Iterable[str]) -> set[str]:
    """Return those of a module's attributes that not every module has."""
    return {*names} - _OF_EVERY_MODULE - {"_compiled_call_impl"}


def compiled_call(module: nn.Module) -> dict[str, Any]:
    """Return what a module calls in place of its own `_call_impl`, compiled or not; or else {}."""
    compiled = module._compiled_call_impl
    called: Any = getattr(compiled, "_torchdynamo_orig_callable", compiled)
    return {} if called in (None, module._call_impl) else {"_call_impl": called}


def has_gradient_hooks(tensor: Tensor) -> bool:
    """Return whether a hook alters the gradient of a tensor."""
    return bool(tensor._backward_hooks)


def unwrapped(module: Any) -> Any:
    """Return what `torch.compile` made a module around, or else the module."""
    is_wrapper = isinstance(module, nn.Module) and type(module).__module__.startswith("torch._")
    return module._modules["_orig_mod"] if is_wrapper else module


def has_own_attention() -> bool:
    """Return whether attention is torch's function."""
    return nn.functional.scaled_dot_product_attention is torch._C._nn.scaled_dot_product_attention


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """Yield parameters and buffers of a module itself, also a tensor that has two names."""
    return chain(module._parameters.items(), module._buffers.items())


def is_dropout(module: nn.Module) -> bool:
    """Return whether a module is dropout of any kind."""
    return isinstance(module, _DropoutNd)


def has_modes() -> bool:
    """Return whether a mode observes torch's functions or operations."""
    return torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack() > 0
