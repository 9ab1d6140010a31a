"""Stable Diffusion and every pipeline of its shape: VAE, CLIP text encoder, conditional UNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from bench.contracts.levels import Levels
from bench.engine.images import NORMALIZATIONS, preprocess
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import Part, find_tensors, load
from bench_plugins.backbones._flops import count_unet
from bench_plugins.backbones._folding import fold_prompts
from bench_plugins.backbones._pipeline import (
    TEXT_ENCODER,
    UNET,
    VAE,
    Pipeline,
    read_pipeline,
)
from bench_plugins.backbones._tokenizer import load_tokenizer

diffusers.logging.set_verbosity_error()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class StableDiffusion:
    """A latent text-to-image diffusion model in diffusers' folder layout.

    The parts are loaded separately, from safetensors only: the pipeline class would bring a safety
    checker, and cached embeddings need no text encoder, which is loaded when it is first needed.
    Everything else is read from the configs.

    Args:
        weights: a folder or a Hub repository.
        device: a torch device.
        dtype: float32, bfloat16 or float16, of UNet and text encoder. The VAE stays in float32:
            it runs once per image, and SD's overflows in float16.
        normalize: `half` or `cifar10`.
        resolution: image side in pixels; None: what the model was made for.

    Raises:
        UserError: a part is missing, damaged, of a kind that this class does not know, or does not
            fit the others.
    """

    can_linearise = True

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        normalize: str = "half",
        resolution: int | None = None,
    ) -> None:
        self.check_weights(weights, dtype=dtype, normalize=normalize, resolution=resolution)
        self.weights = weights
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype]
        self.normalize = normalize
        self._pipeline = read_pipeline(weights, resolution)
        self.resolution = self._pipeline.resolution
        self.latent_shape = self._pipeline.latent_shape
        self.levels = self._pipeline.noise.levels
        self.prediction_type = self._pipeline.noise.prediction_type
        self.alphas_cumprod = self._pipeline.noise.alphas_cumprod
        self.tokenizer = load_tokenizer(weights)
        self.unet = self._load(UNET, self.dtype)
        self.vae = self._load(VAE, torch.float32)

    @cached_property
    def text_encoder(self) -> Any:
        """The text encoder."""
        return self._load(TEXT_ENCODER, self.dtype)

    def _load(self, part: Part, dtype: torch.dtype) -> Any:
        return load(self.weights, part, self._pipeline.configs[part], dtype, self.device)

    @staticmethod
    def check_weights(
        weights: Weights,
        *,
        dtype: str = "float32",
        normalize: str = "half",
        resolution: int | None = None,
    ) -> None:
        """Refuse what the class would refuse, without reading or making a tensor.

        Raises:
            UserError: as the class does, except for values that are not finite.
        """
        if normalize not in NORMALIZATIONS:
            raise UserError(f"--normalize {normalize!r}: one of {', '.join(NORMALIZATIONS)}.")
        pipeline = read_pipeline(weights, resolution)
        for part, module in pipeline.empty.items():
            find_tensors(weights, part, module, torch.float32 if part is VAE else DTYPES[dtype])

    @staticmethod
    def level_table(weights: Weights, *, resolution: int | None = None, **other: Any) -> Levels:
        """Return the noise levels that the scheduler's config describes."""
        return read_pipeline(weights, resolution).noise.levels

    @staticmethod
    def token_counts(weights: Weights, texts: Sequence[str]) -> tuple[list[int], int]:
        """Return the tokens of each text, start and end included, and the most there may be."""
        tokenizer = load_tokenizer(weights)
        return [len(ids) for ids in tokenizer(list(texts)).input_ids], tokenizer.model_max_length

    @staticmethod
    def evaluation_flops(weights: Weights, resolution: int | None = None) -> float:
        """Count the floating-point operations of one evaluation, from the configs alone."""
        return float(_count(read_pipeline(weights, resolution)))

    @staticmethod
    @lru_cache(maxsize=8)
    def linearisation_cost(weights: Weights, resolution: int | None = None) -> float:
        """Return what a linearised draw costs in evaluations, counted from the configs alone.

        That is the operations of a forward pass with the gradient to the conditioning, over those
        of a forward pass.
        """
        pipeline = read_pipeline(weights, resolution)
        return round(_count(pipeline, gradient=True) / _count(pipeline), 3)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return float32 [n, C, H, W]: the posterior's mean, shifted and scaled as configured."""
        return self.posterior(images)[0]

    @torch.inference_mode()
    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents' mean and standard deviation, shifted and scaled as configured."""
        pixels = preprocess(images, self.resolution, self.normalize).to(self.device)
        found = self.vae.encode(pixels).latent_dist
        mean = (found.mean.float() - self._pipeline.shift) * self._pipeline.scaling
        return mean, found.std.float() * self._pipeline.scaling

    def encode_null(self) -> torch.Tensor:
        """Return the conditioning of the empty text, as the pipeline's negative prompt is."""
        return self.encode_prompts([""])

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

    def denoise(
        self, x_t: torch.Tensor, t: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Return the UNet's prediction, [B, C, H, W] in the model's dtype."""
        predicted: torch.Tensor = self.unet(x_t.to(self.dtype), t, conditioning, return_dict=False)[
            0
        ]
        return predicted

    def save_memory(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.unet.enable_gradient_checkpointing()

    @property
    def network(self) -> Any:
        """The module that `denoise` calls."""
        return self.unet

    def fold_prompts(self, conditioning: torch.Tensor) -> torch.Tensor:
        """Compute once what the UNet computes of these prompts alone, where that pays."""
        return fold_prompts(self.unet, conditioning)


def _count(pipeline: Pipeline, gradient: bool = False) -> int:
    unet = pipeline.empty[UNET]
    return count_unet(unet, pipeline.latent_shape, pipeline.prompt_shape, gradient)
