"""UNets of latents: one that was distilled with guidance, such as LCM's, is told its scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from diffusers import LatentConsistencyModelPipeline, UNet2DConditionModel

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import Part
from bench_plugins.backbones._folders import Folder, read_folder
from bench_plugins.backbones._latent import LatentDenoiser


class UNetDenoiser(LatentDenoiser):
    """A pipeline around a conditional UNet.

    One that was distilled with guidance has a `time_cond_proj_dim`, and is told the scale:
    `strength`, or what its pipeline tells it unless it is asked for another one.
    """

    network_part = Part("unet", "diffusion_pytorch_model", UNet2DConditionModel.from_config)
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
        told = read_folder(cls, weights, resolution).guidance
        if settings.get("strength") is not None and told is None:
            raise UserError(
                f"strength={settings['strength']}: {weights.location} is told no guidance scale;"
                " only a network that was distilled with one is, such as LCM's."
            )

    @classmethod
    def weight_parameters(
        cls, weights: Weights, *, resolution: int | None = None, **other: Any
    ) -> Mapping[str, Any]:
        """Return the guidance scale that a distilled network is told where nobody sets it."""
        told = read_folder(cls, weights, resolution).guidance
        return {} if told is None or other.get("strength") is not None else {"strength": told}


def timestep_cond(network: Any, folder: Folder, x_t: torch.Tensor) -> torch.Tensor | None:
    """Return what a distilled UNet is told besides the time, [B, D]; None for all others."""
    if folder.guidance is None:
        return None
    width = int(network.config.time_cond_proj_dim)
    return _embedded(folder.guidance, width, x_t.dtype, x_t.device).expand(len(x_t), -1)


@lru_cache(maxsize=4)
def _embedded(
    guidance: float, width: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return the embedding of a guidance scale, [1, D], as diffusers' pipelines compute it."""
    embed: Any = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    with torch.device("cpu"), torch.inference_mode(False):
        made: torch.Tensor = embed(None, torch.tensor([guidance - 1]), embedding_dim=width)
    return made.to(device=device, dtype=dtype)
