"""Count the operations of a denoiser on the meta device, and the size of modules; see `meta`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.trees import leaves, mapped
from bench.machine.libraries.private_torch import tree_leaves

if TYPE_CHECKING:
    from bench_plugins.backbones.pipeline import PipelineDenoiser


@lru_cache(maxsize=64)
def operations(denoiser: PipelineDenoiser, gradient: bool = False) -> float:
    """Return the floating-point operations of one evaluation.

    With `gradient`, those of its derivative with respect to the encoded prompt are included.

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
