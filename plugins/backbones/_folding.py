"""A UNet's results that depend on the prompts alone, computed once and looked up by number.

A small network spends much of an evaluation on them. Those of SDXL's UNet take 25 MB per prompt in
half precision (70 layers, 77 tokens) and are not kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

LIMIT = 64_000_000  # bytes of results; beyond, fetching them costs more than computing them


class Folded(nn.Module):
    """A module that has its results for the run's prompts.

    Called with prompt numbers, [B, 1, 1], it looks results up; called with a conditioning,
    [B, L, D], it computes them.
    """

    results: Tensor

    def __init__(self, original: nn.Module, conditioning: Tensor) -> None:
        super().__init__()
        self.original = original
        results = original(conditioning)
        self.shape = results.shape[1:]
        self.register_buffer("results", results.flatten(1), persistent=False)

    def forward(self, conditioning: Tensor) -> Tensor:
        """Return the module's results, [B, …]."""
        if conditioning.shape[1:] != (1, 1):
            computed: Tensor = self.original(conditioning)
            return computed
        return F.embedding(conditioning.flatten().long(), self.results).view(-1, *self.shape)


@torch.no_grad()
def fold_prompts(unet: UNet2DConditionModel, conditioning: Tensor) -> Tensor:
    """Give `unet` its results for the prompts of a conditioning, [P, L, D], in place.

    Returns:
        Prompt numbers [P, 1, 1], which replace the conditioning. They have its dtype, since some
        pipelines cast their latents to it. The conditioning itself is returned if its dtype cannot
        count so many prompts, if the results would be too large, or if the UNet changes the
        conditioning before using it.
    """
    unfold_prompts(unet)
    config = unet.config
    if config.encoder_hid_dim_type or config.cross_attention_norm:
        return conditioning
    children = _prompt_only(unet)
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
    """Return whether the UNet uses its conditioning."""
    return bool(_prompt_only(unet))


def _prompt_only(unet: UNet2DConditionModel) -> list[tuple[nn.Module, str]]:
    children = [
        (module, name)
        for module in unet.modules()
        if getattr(module, "is_cross_attention", False) and hasattr(module, "to_k")
        for name in ("to_k", "to_v")
    ]
    if unet.config.addition_embed_type == "text":
        children.append((unet, "add_embedding"))
    return children
