"""FLUX.1: CLIP's pooled text, T5's tokens, packed latents, and a rectified flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from bench.contracts.levels import Levels
from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import diffusers_part
from bench_plugins.backbones._configs import read_flow
from bench_plugins.backbones._folders import Configs, Pipeline, same
from bench_plugins.backbones._latent import LatentDenoiser
from bench_plugins.backbones._texts import TextEncoder, clip, last, pooled, t5

PACK = 2  # a token is a square of so many latent pixels
LATENT_SIDE = 128  # of the latents at 1024 pixels, as the pipeline's default has it
T5_TOKENS_BY_GUIDANCE = {
    False: 256,
    True: 512,
}  # of T5; the first: schnell, which has no guidance embedding


class Flux(LatentDenoiser):
    """FLUX.1 schnell and dev.

    Dev was distilled with guidance and is told its strength: `strength`, 3.5 in its pipeline.
    """

    pipelines = ("FluxPipeline",)
    network_part = diffusers_part("transformer", FluxTransformer2DModel)
    network_classes = ("FluxTransformer2DModel",)

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return CLIP ViT-L and T5."""
        guided = bool(weights.read("transformer/config.json").get("guidance_embeds"))
        tokens = parameters.get("tokens") or T5_TOKENS_BY_GUIDANCE[guided]
        if not 1 <= tokens <= 512:
            raise UserError(f"tokens={tokens}: T5 takes 1 to 512 here.")
        first = clip("text_encoder", "tokenizer", projected=False)
        return first, t5("text_encoder_2", "tokenizer_2", tokens)

    @classmethod
    def token_counts(cls, weights: Weights, texts: Sequence[str]) -> tuple[list[int], int]:
        """Return the tokens for T5; CLIP gives only the pooled text, and may cut."""
        _, long = cls.encoders(weights)
        return long.counts(weights, texts), long.limit(weights)

    @classmethod
    def check_text(cls, weights: Weights, network: nn.Module, configs: Configs) -> None:
        """Check the width of the pooled text, and of T5."""
        config: Any = network.config
        width = configs[0].get("hidden_size")
        same(weights, "text_encoder", "hidden_size", width, config.pooled_projection_dim)
        width = configs[1].get("d_model")
        same(weights, "text_encoder_2", "d_model", width, config.joint_attention_dim)

    @classmethod
    def native_side(cls, config: Any) -> Any:
        """Return the side of the latents at 1024 pixels."""
        return LATENT_SIDE

    @classmethod
    def step(cls, config: Any) -> int:
        """Return what the sides of a latent must be multiples of."""
        return PACK

    @classmethod
    def channels(cls, config: Any) -> int:
        """Return the channels of a latent before it is packed."""
        return int(config.in_channels) // PACK**2

    @classmethod
    def make_levels(cls, weights: Weights, folder: Pipeline) -> Levels:
        """Return the flow's levels; the network is told sigma."""
        side = folder.latent_shape[-1] // PACK
        return read_flow(weights, side * side, scale=1.0)

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        config: Any = folder.empty.config
        return {
            "embeddings": torch.empty(
                1, T5_TOKENS_BY_GUIDANCE[config.guidance_embeds], config.joint_attention_dim
            ),
            "pooled": torch.empty(1, config.pooled_projection_dim),
            **({"guidance": torch.empty(1, 1)} if config.guidance_embeds else {}),
        }

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return embeddings [n, L, D], pooled text [n, D'], and the guidance where it is told."""
        first, second = self.encoders(self.weights, **self.parameters)
        [short] = self.encoded(first, first.ids(self.weights, texts), pooled)
        [long] = self.encoded(second, second.ids(self.weights, texts), last)
        conditioning = {"embeddings": long, "pooled": short}
        if self._folder.empty.config.guidance_embeds:
            strength = float(self.parameters.get("strength", 3.5))
            conditioning["guidance"] = torch.full((len(texts), 1), strength, device=self.device)
        return conditioning

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return what the network is called with, latents packed."""
        _, channels, side, _ = x_t.shape
        rows = side // PACK
        squares = x_t.reshape(-1, channels, rows, PACK, rows, PACK)
        packed = squares.permute(0, 2, 4, 1, 3, 5).reshape(len(x_t), rows * rows, -1)
        length = text["embeddings"].shape[1]
        places = torch.arange(rows, device=x_t.device, dtype=x_t.dtype)
        row, column = places.repeat_interleave(rows), places.repeat(rows)
        grid = torch.stack([torch.zeros_like(row), row, column], dim=1)
        strength = text["guidance"][:, 0] if "guidance" in text else None
        return {
            "hidden_states": packed,
            # As the pipeline does: 1000 sigma is rounded to the latents' dtype, then divided.
            "timestep": (1000 * t).to(x_t.dtype) / 1000,
            "guidance": strength,
            "pooled_projections": text["pooled"],
            "encoder_hidden_states": text["embeddings"],
            "txt_ids": torch.zeros(length, 3, device=x_t.device, dtype=x_t.dtype),
            "img_ids": grid,
        }

    @classmethod
    def prediction(cls, folder: Pipeline, output: Tensor) -> Tensor:
        """Return the predicted velocity, eps − x_0, unpacked."""
        channels, side, _ = folder.latent_shape
        rows = side // PACK
        squares = output.reshape(-1, rows, rows, channels, PACK, PACK)
        return squares.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, side, side)
