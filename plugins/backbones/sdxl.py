"""Stable Diffusion XL: two CLIP text encoders, pooled text, and the picture's size and crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._folders import PIPELINE_INDEX, Configs, Pipeline, same
from bench_plugins.backbones._texts import TextEncoder, clip, penultimate, penultimate_and_pooled
from bench_plugins.backbones._unets import UNetDenoiser

SIZE_VALUES = 6  # original height and width, the crop's top and left, target height and width


class StableDiffusionXL(UNetDenoiser):
    """SDXL's base model and its fine-tunes.

    The network is told the picture's size before it was resized, the crop's place and the size it
    has now. Here the first is the resolution too, or `original_size`, and nothing was cropped.
    """

    pipelines = ("StableDiffusionXLPipeline",)

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return CLIP ViT-L and OpenCLIP ViT-bigG."""
        original_size = parameters.get("original_size")
        if original_size is not None and not 1 <= original_size <= 100_000:
            raise UserError(f"original_size={original_size}: 1 to 100,000 pixels are possible.")
        first = clip("text_encoder", "tokenizer", projected=False)
        return first, clip("text_encoder_2", "tokenizer_2", projected=True)

    @classmethod
    def check_text(cls, weights: Weights, network: nn.Module, configs: Configs) -> None:
        """Check the widths of both encoders and of the pooled text."""
        config: Any = network.config
        first, second = (text.get("hidden_size") for text in configs)
        wanted = config.cross_attention_dim
        same(weights, "text_encoder_2", "hidden_size", second, wanted - (first or 0))
        pooled = config.projection_class_embeddings_input_dim
        pooled -= SIZE_VALUES * config.addition_time_embed_dim
        same(weights, "text_encoder_2", "projection_dim", configs[1].get("projection_dim"), pooled)

    @classmethod
    def step(cls, config: Any) -> int:
        """Return how often a UNet halves its latent, as a factor."""
        return int(2 ** (len(config.block_out_channels) - 1))

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        config: Any = folder.empty.config
        if config.addition_embed_type != "text_time":
            raise ValueError(
                f"addition_embed_type is {config.addition_embed_type!r}, not text_time"
            )
        pooled = config.projection_class_embeddings_input_dim
        return {
            "embeddings": torch.empty(1, 77, config.cross_attention_dim),
            "pooled": torch.empty(1, pooled - SIZE_VALUES * config.addition_time_embed_dim),
            "sizes": torch.empty(1, SIZE_VALUES, dtype=torch.int64),
        }

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return embeddings [n, 77, D], pooled text [n, D'], and sizes, int64 [n, 6]."""
        first, second = self.encoders(self.weights, **self.parameters)
        [narrow] = self.encoded(first, first.ids(self.weights, texts), penultimate)
        wide, pooled = self.encoded(second, second.ids(self.weights, texts), penultimate_and_pooled)
        side = self.parameters.get("original_size") or self.resolution
        sizes = [side, side, 0, 0, self.resolution, self.resolution]
        return {
            "embeddings": torch.cat([narrow, wide], dim=-1),
            "pooled": pooled,
            "sizes": torch.tensor([sizes] * len(texts), device=self.device),
        }

    def encode_null(self) -> Tree:
        """Return zeros, where the pipeline's config asks for them, else the empty text's."""
        empty: Any = self.encode_prompts([""])
        index = self.weights.find(PIPELINE_INDEX) and self.weights.read(PIPELINE_INDEX)
        if index and not index.get("force_zeros_for_empty_prompt", True):
            return empty  # type: ignore[no-any-return]
        zeros = {name: torch.zeros_like(empty[name]) for name in ("embeddings", "pooled")}
        return {**zeros, "sizes": empty["sizes"]}

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return what the network is called with."""
        added = {"text_embeds": text["pooled"], "time_ids": text["sizes"].to(x_t.dtype)}
        inputs = super().inputs(folder, x_t, t, text["embeddings"])
        return {**inputs, "added_cond_kwargs": added}
