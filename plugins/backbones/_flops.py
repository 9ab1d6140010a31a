"""Floating-point operations of a family's network, counted on torch's meta device.

Nothing is computed and no clock is read, so that a count is the same on every machine and day.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.inputs.weights import Weights
from bench_plugins.backbones._folders import Folder, call_network, read_folder

if TYPE_CHECKING:
    from bench_plugins.backbones._latent import LatentDenoiser


def count(family: type[LatentDenoiser], folder: Folder, gradient: bool = False) -> int:
    """Count one evaluation of a family; or one with the gradient to the conditioning."""
    # Attention written out: some kernels are not counted, those of a CPU among them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        prediction = call_network(family, folder.empty, folder, gradient)
        if gradient:
            torch.autograd.backward(prediction.square().sum())  # autograd.grad cannot be counted
    return int(counter.get_total_flops())


@lru_cache(maxsize=8)
def gradient_share(family: Any, weights: Weights, resolution: int | None) -> float:
    """Return the operations of an evaluation with the gradient, over those without.

    Args:
        family: of denoisers.
        weights: the pipeline.
        resolution: image side in pixels; None: what the model was made for.
    """
    folder = read_folder(family, weights, resolution)
    return round(count(family, folder, gradient=True) / count(family, folder), 3)
