"""Operations and memory of a pipeline without tensors; see `_hollow`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.trees import leaves, mapped


def operations(hollow: Any, gradient: bool = False) -> int:
    """Return the floating-point operations of one evaluation, or of one with its gradient."""
    # Plain attention: some fused kernels, such as the CPU's, are not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        predict_cell(hollow, gradient)
        if gradient:
            answers = tree_leaves(hollow.network.answer)
            # Not `autograd.grad`, which is not counted.
            torch.autograd.backward(sum(answer.square().sum() for answer in answers))
    return int(counter.get_total_flops())


def peak_of_cell(hollow: Any) -> int:
    """Return the peak of memory in bytes while a cell is evaluated."""
    return peak_bytes(lambda: predict_cell(hollow))


def peak_of_image(hollow: Any) -> int:
    """Return the peak of memory in bytes while an image is encoded."""
    image = Image.new("RGB", (hollow.resolution,) * 2)
    return peak_bytes(lambda: hollow.encode_images([image]))


def predict_cell(hollow: Any, gradient: bool = False) -> Tensor:
    """Return the prediction for one latent and one prompt."""
    with torch.set_grad_enabled(gradient):
        tree = mapped(torch.clone, hollow.shortest)
        for leaf in leaves(tree).values():
            leaf.requires_grad_(gradient and leaf.is_floating_point())
        time = torch.as_tensor(hollow.levels.time[:1])
        time = time.float() if time.is_floating_point() else time
        prediction: Tensor = hollow.denoise(torch.zeros(1, *hollow.latent_shape), time, tree)
        return prediction


def size(module: nn.Module) -> int:
    """Return the bytes of a module's parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the peak of memory in bytes of the tensors that `work` makes.

    On the meta device, tensors live as long as on any other. Attention is counted as in fused
    kernels, without its matrix; what kernels allocate for themselves is not counted.
    """
    alive = _Alive()
    with torch.no_grad(), alive, _FusedAttention():
        work()
    return alive.peak


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not typed
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for is_new, tensors in ((False, (args, kwargs)), (True, result)):
            for tensor in tree_leaves(tensors):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    # A tensor that no operation made is a parameter.
                    self._add(storage, storage.nbytes() if is_new else 0)
        return result

    def _add(self, storage: Any, size: int) -> None:
        if (key := storage._cdata) not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


class _FusedAttention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = (args + tuple((kwargs or {}).values()))[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
