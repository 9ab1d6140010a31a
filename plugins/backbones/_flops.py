"""Floating-point operations of a pipeline's UNet, counted on torch's meta device.

Nothing is computed and no clock is read, so that a count is the same on every machine and day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench_plugins.backbones._folders import Folder, call_network

if TYPE_CHECKING:
    from bench_plugins.backbones._latent import LatentDenoiser


def count(family: type[LatentDenoiser], folder: Folder, gradient: bool = False) -> int:
    """Count one evaluation of a family; or one with the gradient to the conditioning."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        prediction = call_network(family, folder.empty, folder, gradient)
        if gradient:
            torch.autograd.backward(prediction.square().sum())
    return int(counter.get_total_flops())


def call_unet(
    unet: nn.Module, latent: tuple[int, int, int], prompt: tuple[int, int], gradient: bool = False
) -> torch.Tensor:
    """Call a UNet on the meta device as `denoise` does, with one latent and one prompt.

    Args:
        unet: made on the meta device.
        latent: (C, H, W).
        prompt: (L, D).
        gradient: whether the prompt asks for one.
    """
    with torch.device("meta"), torch.set_grad_enabled(gradient):
        x_t, t = torch.empty(1, *latent), torch.empty(1)
        conditioning = torch.empty(1, *prompt, requires_grad=gradient)
        prediction: torch.Tensor = unet(x_t, t, conditioning, return_dict=False)[0]
    return prediction


def count_unet(
    unet: nn.Module, latent: tuple[int, int, int], prompt: tuple[int, int], gradient: bool = False
) -> int:
    """Count one evaluation; or one with the gradient to the conditioning, and no other.

    Args: as of `call_unet`; the parameters of `unet` ask for no gradient.
    """
    # Attention written out: some kernels are not counted, those of a CPU among them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        prediction = call_unet(unet, latent, prompt, gradient)
        if gradient:
            torch.autograd.backward(prediction.square().sum())  # autograd.grad cannot be counted
    return int(counter.get_total_flops())
