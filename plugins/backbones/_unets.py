"""UNets of latents, and what they compute of the prompts alone, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers import LatentConsistencyModelPipeline, UNet2DConditionModel
from torch import Tensor, nn

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import diffusers_part
from bench_plugins.backbones._folders import Pipeline, read_folder
from bench_plugins.backbones._latent import LatentDenoiser

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class UNetDenoiser(LatentDenoiser):
    """A pipeline around a conditional UNet.

    One that was distilled with guidance has a `time_cond_proj_dim`, and is told the scale:
    `strength`, or what its pipeline tells it unless it is asked for another one.
    """

    network_part = diffusers_part("unet", UNet2DConditionModel)
    network_classes = ("UNet2DConditionModel",)

    def __init__(self, weights: Weights, **settings: Any) -> None:
        super().__init__(weights, **settings)
        if (strength := settings.get("strength")) is not None:
            self._folder = replace(self._folder, guidance=strength)

    @classmethod
    def check_weights(
        cls, weights: Weights, *, resolution: int | None = None, **settings: Any
    ) -> None:
        """Refuse what the class would refuse; see `LatentDenoiser`."""
        super().check_weights(weights, resolution=resolution, **settings)
        scale = read_folder(cls, weights, resolution).guidance
        if settings.get("strength") is not None and scale is None:
            raise UserError(
                f"strength={settings['strength']}: {weights.location} takes no guidance scale;"
                " only a network that was distilled with one is, such as LCM's."
            )

    @classmethod
    def weight_parameters(
        cls, weights: Weights, *, resolution: int | None = None, **other: Any
    ) -> Mapping[str, Any]:
        """Return the guidance scale that a distilled network is told where nobody sets it."""
        scale = read_folder(cls, weights, resolution).guidance
        return {} if scale is None or other.get("strength") is not None else {"strength": scale}

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return latents, time, embeddings and, of a distilled UNet, the scale's embedding."""
        scale = None
        if folder.guidance is not None:
            width = int(folder.empty.config.time_cond_proj_dim)
            scale = _embedded(folder.guidance, width, x_t.dtype, x_t.device).expand(len(x_t), -1)
        return {"sample": x_t, "timestep": t, "encoder_hidden_states": text, "timestep_cond": scale}


@lru_cache(maxsize=4)
def _embedded(guidance: float, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the embedding of a guidance scale, [1, D], as diffusers' pipelines compute it."""
    embed: Any = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    with torch.device("cpu"), torch.inference_mode(False):
        made: Tensor = embed(None, torch.tensor([guidance - 1]), embedding_dim=width)
    return made.to(device=device, dtype=dtype)


LIMIT = 64_000_000  # bytes of results; beyond, fetching them costs more than computing them


class Folded(nn.Module):
    """A module with its results for the run's prompts.

    Called with prompt numbers, int64 [B, 1, 1], it looks its result up; called with a conditioning,
    [B, L, D], it computes, as before.
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
        if conditioning.is_floating_point():
            computed: Tensor = self.original(conditioning)
            return computed
        return F.embedding(conditioning.flatten(), self.results).view(-1, *self.shape)


@torch.no_grad()
def fold_prompts(unet: UNet2DConditionModel, conditioning: Tensor) -> Tensor:
    """Give `unet` its results for the prompts of a conditioning, [P, L, D], in place.

    Returns:
        What stands for the conditioning: int64 [P, 1, 1]. Where the results would be too large,
        or the UNet changes the conditioning before it is used, the conditioning itself.
    """
    unfold_prompts(unet)
    config = unet.config
    if config.encoder_hid_dim_type or config.cross_attention_norm:
        return conditioning
    children = _prompt_only(unet)
    tokens = conditioning.shape[0] * conditioning.shape[1]
    widths = sum(getattr(getattr(m, name), "out_features", 0) for m, name in children)
    if tokens * widths * conditioning.element_size() > LIMIT:
        return conditioning
    for module, name in children:
        setattr(module, name, Folded(getattr(module, name), conditioning))
    return torch.arange(len(conditioning), device=conditioning.device)[:, None, None]


def unfold_prompts(unet: UNet2DConditionModel) -> None:
    """Undo `fold_prompts`."""
    for module in list(unet.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Folded):
                setattr(module, name, child.original)


def uses_prompts(unet: UNet2DConditionModel) -> bool:
    """Return whether the UNet computes anything of its conditioning."""
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
