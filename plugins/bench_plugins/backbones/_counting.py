"""Count the operations and memory of a denoiser on the meta device; see `_meta`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.trees import leaves, mapped
from bench.machine.libraries.private_torch import TorchDispatchMode, storage_key, tree_leaves

if TYPE_CHECKING:
    from bench_plugins.backbones.pipeline import PipelineDenoiser


@lru_cache(maxsize=64)
def operations(denoiser: PipelineDenoiser, gradient: bool = False) -> float:
    """Return the floating-point operations of one evaluation, or of one with its gradient.

    The denoiser is on the meta device, and nothing changes it afterwards.
    """

    def work() -> None:
        predict_cell(denoiser, gradient)
        if gradient:
            network: Any = denoiser.network
            outputs = tree_leaves(network.meta_output)
            # The counter ignores `torch.autograd.grad`.
            torch.autograd.backward(sum(output.square().sum() for output in outputs))

    return counted_operations(work)


def counted_operations(work: Callable[[], object]) -> float:
    """Return the floating-point operations of `work`, with attention that is not fused."""
    # The counter does not know all fused attention kernels, such as the CPU's.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


@lru_cache(maxsize=8)
def peak_of_cell(denoiser: PipelineDenoiser) -> int:
    """Return the peak memory in bytes of evaluating one cell, without the weights."""
    return peak_bytes(lambda: predict_cell(denoiser))


@lru_cache(maxsize=8)
def peak_of_image(denoiser: PipelineDenoiser) -> int:
    """Return the peak memory in bytes of encoding one image, without the weights."""
    image = Image.new("RGB", (denoiser.resolution,) * 2)
    return peak_bytes(lambda: denoiser.encode_images([image]))


def predict_cell(denoiser: PipelineDenoiser, gradient: bool = False) -> Tensor:
    """Return the prediction for one zero latent and one short prompt."""
    with torch.set_grad_enabled(gradient):
        tree = mapped(torch.clone, denoiser.runner.shortest)
        for leaf in leaves(tree).values():
            leaf.requires_grad_(gradient and leaf.is_floating_point())
        time = torch.as_tensor(denoiser.levels.time[:1])
        time = time.float() if time.is_floating_point() else time
        prediction: Tensor = denoiser.denoise(torch.zeros(1, *denoiser.latent_shape), time, tree)
        return prediction


def size(module: nn.Module) -> int:
    """Return the size of a module's parameters in bytes."""
    return sum(parameter.nbytes for parameter in module.parameters())


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the peak memory in bytes of the tensors that `work` creates.

    Tensors on the meta device have the same lifetime as on any other. Attention is assumed to be
    fused, so its matrix is not counted; nor is memory that kernels allocate internally.
    """
    live = _LiveBytes()
    with torch.no_grad(), live, _FusedAttention():
        work()
    return live.peak


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not typed
    """Tracks the bytes of tensors alive that were created by operations, and their peak."""

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
                    # A new storage among the arguments is a parameter: it counts 0 bytes.
                    self._add(storage, storage.nbytes() if is_new else 0)
        return result

    def _add(self, storage: Any, size: int) -> None:
        if (key := storage_key(storage)) not in self._seen:
            self._seen.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


class _FusedAttention(TorchFunctionMode):
    """Replaces attention by the allocation of its output."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = (args + tuple((kwargs or {}).values()))[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
