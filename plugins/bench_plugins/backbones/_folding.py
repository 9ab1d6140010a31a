"""Precompute the layers of a UNet whose results depend on the prompts alone.

These are the key and value projections of cross-attention, and the embedding of added text. Their
results are stored and looked up by prompt number, which is called folding here. A small network
spends much of an evaluation on them. For SDXL's UNet they are too large: 25 MB per prompt in half
precision (70 layers, 77 tokens).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

LIMIT = 64_000_000  # bytes; reading larger results costs more than computing them


class Folded(nn.Module):
    """A layer with stored results for all prompts.

    It looks up results if it is called with prompt numbers, [B, 1, 1], and computes them if it is
    called with a conditioning, [B, L, D].
    """

    results: Tensor

    def __init__(self, original: nn.Module, conditioning: Tensor) -> None:
        super().__init__()
        self.original = original
        results = original(conditioning)
        self.shape = results.shape[1:]
        self.register_buffer("results", results.flatten(1), persistent=False)

    def forward(self, conditioning: Tensor) -> Tensor:
        """Return the layer's results, [B, …]."""
        if conditioning.shape[1:] != (1, 1):
            computed: Tensor = self.original(conditioning)
            return computed
        return F.embedding(conditioning.flatten().long(), self.results).view(-1, *self.shape)


@torch.no_grad()
def fold_prompts(unet: UNet2DConditionModel, conditioning: Tensor) -> Tensor:
    """Replace layers of `unet`, in place, by ones with stored results for the prompts, [P, L, D].

    Return prompt numbers, [P, 1, 1], to use as the conditioning. They have its dtype, because some
    pipelines cast their latents to it. The conditioning itself is returned, and no layer is
    replaced, if its dtype cannot represent so many numbers, if the results exceed `LIMIT`, or if
    the UNet transforms the conditioning before it uses it.
    """
    unfold_prompts(unet)
    config = unet.config
    if config.encoder_hid_dim_type or config.cross_attention_norm:
        return conditioning
    children = _prompt_layers(unet)
    prompts, tokens = conditioning.shape[:2]
    widths = sum(getattr(getattr(m, name), "out_features", 0) for m, name in children)
    size = prompts * tokens * widths * conditioning.element_size()
    if size > LIMIT or prompts > 2 / torch.finfo(conditioning.dtype).eps:
        return conditioning
    for module, name in children:
        setattr(module, name, Folded(getattr(module, name), conditioning))
    return torch.arange(prompts, device=conditioning.device).to(conditioning.dtype)[:, None, None]


def unfold_prompts(unet: UNet2DConditionModel) -> None:
    """Undo `fold_prompts`."""
    for module in list(unet.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Folded):
                setattr(module, name, child.original)


def uses_prompts(unet: UNet2DConditionModel) -> bool:
    """Return whether the UNet has layers that use the prompts."""
    return bool(_prompt_layers(unet))


def _prompt_layers(unet: UNet2DConditionModel) -> list[tuple[nn.Module, str]]:
    """Return the layers whose input is the prompts alone, as (parent, name of the child)."""
    children = [
        (module, name)
        for module in unet.modules()
        if getattr(module, "is_cross_attention", False) and hasattr(module, "to_k")
        for name in ("to_k", "to_v")
    ]
    if unet.config.addition_embed_type == "text":
        children.append((unet, "add_embedding"))
    return children
