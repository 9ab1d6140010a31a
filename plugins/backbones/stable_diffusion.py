"""Stable Diffusion and every pipeline of its shape: VAE, CLIP text encoder, conditional UNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn

from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import build_empty, load
from bench_plugins.backbones._folders import PIPELINE_INDEX, Configs, Pipeline
from bench_plugins.backbones._refusals import without_index
from bench_plugins.backbones._texts import TextEncoder, clip
from bench_plugins.backbones._unets import UNetDenoiser, fold_prompts, uses_prompts

CLIP_TEXT = clip("text_encoder", "tokenizer", projected=False)


class StableDiffusion(UNetDenoiser):
    """Stable Diffusion 1 and 2, their fine-tunes, and smaller models of the same parts.

    Its text encoder is small: it stays in memory. Network and VAE are read at once, so that a
    value that is not finite is found before an image is.
    """

    pipelines = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
    )
    keeps_encoders = True
    prompts_at_once = 64

    def __init__(self, weights: Weights, **settings: Any) -> None:
        super().__init__(weights, **settings)
        self.tokenizer = CLIP_TEXT.tokens(weights)
        _ = self.network

    @classmethod
    def check_weights(cls, weights: Weights, **settings: Any) -> None:
        """Refuse what the class would refuse; of a folder that names no class, say what it is."""
        try:
            super().check_weights(weights, **settings)
        except UserError as error:
            if weights.find(PIPELINE_INDEX) is not None:
                raise
            raise without_index(cls, weights, error) from None

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return CLIP's text encoder."""
        return (CLIP_TEXT,)

    @classmethod
    def prompt_shape(cls, weights: Weights) -> tuple[int, int]:
        """Return the tokens of a prompt and their width, as tokenizer and text encoder have it."""
        [config] = cls.text_configs(weights, [CLIP_TEXT])
        encoder: Any = build_empty(weights, CLIP_TEXT.part, config)
        return CLIP_TEXT.limit(weights), encoder.config.hidden_size

    @classmethod
    def check_text(cls, weights: Weights, network: nn.Module, configs: Configs) -> None:
        """Refuse a UNet that takes no prompts."""
        if not uses_prompts(network):
            raise weights.error("unet/config.json", "describes a model that takes no prompts")

    @classmethod
    def step(cls, config: Any) -> int:
        """Return 1: a UNet takes latents of every side."""
        return 1

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        assert folder.prompt_shape is not None
        return torch.empty(1, *folder.prompt_shape)

    @cached_property
    def text_encoder(self) -> Any:
        """The text encoder, loaded when it is first needed: embeddings may be in the cache."""
        [config] = self.text_configs(self.weights, [CLIP_TEXT])
        return load(self.weights, CLIP_TEXT.part, config, self.dtype, self.device)

    @torch.inference_mode()
    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return [n, L, D] in the model's dtype, every prompt padded to the full length L."""
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        # As the pipeline does: SD's encoder config asks for no attention mask.
        mask = None
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self.device)
        encoded: torch.Tensor = self.text_encoder(
            tokens.input_ids.to(self.device), attention_mask=mask
        )[0]
        return encoded

    def fold_prompts(self, conditioning: torch.Tensor) -> torch.Tensor:
        """Compute once what the UNet computes of these prompts alone, where that pays."""
        return fold_prompts(self.network, conditioning)
