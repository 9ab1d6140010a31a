"""Convolutions whose kernels are standardised while they learn, and plain ones afterwards.

Group normalisation learns slowly from few images; with kernels of zero mean and unit variance it
learns as fast as batch normalisation (Qiao et al., "Micro-Batch Training with Batch-Channel
Normalization and Weight Standardization", arXiv 1903.10520). The network that is saved has
ordinary convolutions: the standardised kernels themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

EPSILON = 1e-4


class Standardised(nn.Module):
    """A kernel ``[out, in, h, w]``: zero mean and variance 1 / fan-in an output, times a gain."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(len(kernel), 1, 1, 1))

    def forward(self, kernel: Tensor) -> Tensor:
        """The kernel that convolves."""
        variance, mean = torch.var_mean(kernel, (1, 2, 3), keepdim=True, correction=0)
        fan_in = kernel[0].numel()
        return self.gain * (kernel - mean) * torch.rsqrt(variance * fan_in + EPSILON)


def standardise(network: nn.Module) -> None:
    """Give every 3×3 convolution of `network` a standardised kernel, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            parametrize.register_parametrization(
                module, "weight", Standardised(module.weight.detach())
            )


@torch.no_grad()
def shorten(network: nn.Module) -> None:
    """Scale the kernels that are standardised to the length they began with, in place.

    It changes nothing that they compute. But a kernel grows as it learns, and the longer it is the
    less a step turns it: a new phase would learn several times slower than its learning rate says.
    """
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            kernel = module.get_parameter("parametrizations.weight.original")
            fan_in = kernel[0].numel()
            kernel.div_(kernel.std() * (3 * fan_in) ** 0.5)


def bake(network: nn.Module) -> None:
    """Make the kernels that `standardise` computes ordinary weights, in place."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
