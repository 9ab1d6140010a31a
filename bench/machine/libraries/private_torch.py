"""Names of torch that it does not document, seen in 2.6 to 2.13."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only


def forward_hooks(module: nn.Module) -> Mapping[int, Any]:
    """Return the hooks of a module's forward, with those of all modules."""
    of_all = {**_module._global_forward_hooks, **_module._global_forward_pre_hooks}
    return {**module._forward_hooks, **module._forward_pre_hooks, **of_all}


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """Yield parameters and buffers of a module itself, also a tensor that has two names."""
    return chain(module._parameters.items(), module._buffers.items())


def is_dropout(module: nn.Module) -> bool:
    """Return whether a module is dropout of any kind."""
    return isinstance(module, _DropoutNd)


def is_wrapper(module: nn.Module) -> bool:
    """Return whether `torch.compile` made a module around another."""
    return type(module).__module__.startswith("torch._")


def has_modes() -> bool:
    """Return whether a mode observes torch's functions or operations."""
    return torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack() > 0


def storage_key(storage: Any) -> int:
    """Return what tells a storage from others; on the meta device its address is 0."""
    key: int = storage._cdata
    return key
