"""Stable Diffusion and every pipeline of its shape: VAE, CLIP text encoder, conditional UNet.

The network is called here and not by the pipeline's code, so that what it computes of the prompts
alone can be computed once: of a small network that is most of what the pipeline's code costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from diffusers import LatentConsistencyModelPipeline
from torch import Tensor

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._parts import EMBEDDINGS, PIPELINE_INDEX
from bench_plugins.backbones._refusals import without_index
from bench_plugins.backbones._unets import fold_prompts, uses_prompts
from bench_plugins.backbones.pipeline_folder import FolderPipeline


class StableDiffusion(FolderPipeline):
    """Stable Diffusion 1 and 2, their fine-tunes, and smaller models of the same parts.

    Its text encoder is small: it stays in memory. Network and VAE are read at once, so that a
    value that is not finite is found before an image is. A UNet that was distilled with guidance is
    told the scale: `strength`, or what its pipeline tells it unless it is asked for another one.
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
        self.__dict__.pop("_scale", None)  # of the pipeline without tensors
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

    def check_network(self) -> None:
        """Refuse a UNet that takes no prompts."""
        if not uses_prompts(self.pipe.unet):
            raise self.weights.error("unet/config.json", "describes a model that takes no prompts")

    @property
    def text_encoder(self) -> Any:
        """The text encoder, loaded when it is first needed: embeddings may be in the cache."""
        self._load("text_encoder")
        return self.pipe.text_encoder

    def example(self) -> Tensor:
        """Return the conditioning of a short text, one row."""
        return self.shortest[EMBEDDINGS]

    def encode_prompts(self, texts: Sequence[str]) -> Tensor:
        """Return [n, L, D] in the model's dtype, every prompt padded to the full length L."""
        tree: Any = super().encode_prompts(texts)
        return tree[EMBEDDINGS]  # type: ignore[no-any-return]

    def encode_null(self) -> Tensor:
        """Return the conditioning of the empty text, [1, L, D]."""
        return self.encode_prompts([""])

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the network's prediction, [B, C, H, W] in the model's dtype."""
        scale = self._scale
        prediction: Tensor = self.network(
            x_t.to(self.dtype),
            t,
            encoder_hidden_states=conditioning,
            timestep_cond=None if scale is None else scale.expand(len(x_t), -1),
            return_dict=False,
        )[0]
        return prediction

    def fold_prompts(self, conditioning: Tensor) -> Tensor:
        """Compute once what the UNet computes of these prompts alone, where that pays."""
        return fold_prompts(self.network, conditioning)

    @cached_property
    def _scale(self) -> Tensor | None:
        """The embedding of the guidance scale, [1, D], as diffusers' pipelines compute it."""
        if not self.is_told_guidance:
            return None
        scale = float(self.call.get("guidance_scale", self._takes["guidance_scale"].default))
        embed: Any = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        width = self.network.config.time_cond_proj_dim
        with torch.device("cpu"), torch.inference_mode(False):
            made: Tensor = embed(None, torch.tensor([scale - 1]), embedding_dim=width)
        return made.to(device=self.device, dtype=self.dtype)
