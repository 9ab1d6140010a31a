"""Operations and memory of a pipeline without tensors; see `_hollow`."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.engine.trees import leaves, mapped
from bench_plugins.backbones._memory import peak_bytes


def operations(hollow: Any, gradient: bool = False) -> int:
    """Count one evaluation; or one with the gradient to the conditioning."""
    # Attention written out: some kernels are not counted, those of a CPU among them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        predict_cell(hollow, gradient)
        if gradient:
            answers = tree_leaves(hollow.network.answer)
            # autograd.grad cannot be counted
            torch.autograd.backward(sum(answer.square().sum() for answer in answers))
    return int(counter.get_total_flops())


def peak_of_cell(hollow: Any) -> int:
    """Return the most bytes that are alive at once while a cell is evaluated."""
    return peak_bytes(lambda: predict_cell(hollow))


def peak_of_image(hollow: Any) -> int:
    """Return the most bytes that are alive at once while an image is encoded."""
    image = Image.new("RGB", (hollow.resolution,) * 2)
    return peak_bytes(lambda: hollow.encode_images([image]))


def predict_cell(hollow: Any, gradient: bool = False) -> Tensor:
    """Predict one latent with one prompt."""
    with torch.set_grad_enabled(gradient):
        tree = mapped(torch.clone, hollow.example())
        for leaf in leaves(tree).values():
            leaf.requires_grad_(gradient and leaf.is_floating_point())
        time = torch.as_tensor(hollow.levels.time[:1])
        time = time.float() if time.is_floating_point() else time
        prediction: Tensor = hollow.denoise(torch.zeros(1, *hollow.latent_shape), time, tree)
        return prediction


def size(module: nn.Module) -> int:
    """Return the bytes of a module's parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())
