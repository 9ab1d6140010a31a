"""What denoisers of latents have in common: a VAE, text encoders, and one network.

A family is a subclass that says which parts its folders have, what the network is told of a prompt,
and how it is called. Everything is checked on torch's meta device before a tensor is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import diffusers
import torch
import transformers
from PIL import Image
from torch import nn

from bench.contracts.backbone import Denoiser
from bench.contracts.levels import Levels
from bench.engine.images import NORMALIZATIONS, preprocess
from bench.engine.trees import Tree, mapped
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import build_empty, find_tensors, load, warn_of_adapters
from bench_plugins.backbones._configs import read_config
from bench_plugins.backbones._folders import (
    Family,
    call_empty,
    check_family,
    count,
    gradient_share,
    read_folder,
)
from bench_plugins.backbones._memory import peak_bytes
from bench_plugins.backbones._texts import TextEncoder

diffusers.logging.set_verbosity_error()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LatentDenoiser(Family, Denoiser):
    """A pipeline in diffusers' folder layout.

    Text encoders are loaded one at a time and freed after use, and the network when it is first
    needed, unless a family says otherwise. Weights are read from safetensors only, each tensor
    checked against its module. `dtype` is that of the network and the text encoders. The VAE stays
    in float32: it runs once per image, and some overflow in float16.

    Raises:
        UserError: a part is missing, damaged, of another kind, or does not fit the others.
    """

    can_linearise = True
    prompts_at_once = 1024
    keeps_encoders: ClassVar[bool] = False

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        normalize: str = "half",
        resolution: int | None = None,
        **parameters: Any,
    ) -> None:
        self.check_weights(
            weights, dtype=dtype, normalize=normalize, resolution=resolution, **parameters
        )
        self.weights, self.parameters = weights, parameters
        self.device, self.dtype = torch.device(device), TORCH_DTYPES[dtype]
        self.normalize = normalize
        self._folder = read_folder(type(self), weights, resolution)
        self.resolution = self._folder.resolution
        self.latent_shape = self._folder.latent_shape
        self.levels = self.level_table(weights, resolution=resolution, **parameters)

    # What the toolkit asks.

    @classmethod
    def check_weights(
        cls,
        weights: Weights,
        *,
        dtype: str = "float32",
        normalize: str = "half",
        resolution: int | None = None,
        **parameters: Any,
    ) -> None:
        """Refuse what the class would refuse, without reading or making a tensor."""
        if normalize not in NORMALIZATIONS:
            raise UserError(f"--normalize {normalize!r}: one of {', '.join(NORMALIZATIONS)}.")
        check_family(weights, cls.pipelines)
        encoders = cls.encoders(weights, **parameters)
        configs = cls.text_configs(weights, encoders)
        folder = read_folder(cls, weights, resolution)
        cls.level_table(weights, resolution=resolution, **parameters)
        cls.check_text(weights, folder.empty, configs)
        for encoder, config in zip(encoders, configs, strict=True):
            encoder.tokens(weights)
            empty = build_empty(weights, encoder.part, config)
            find_tensors(weights, encoder.part, empty, TORCH_DTYPES[dtype])
        find_tensors(weights, cls.network_part, folder.empty, TORCH_DTYPES[dtype])
        find_tensors(weights, cls.autoencoder.part, folder.empty_vae, torch.float32)
        parts = cls.network_part, cls.autoencoder.part, *(encoder.part for encoder in encoders)
        warn_of_adapters(weights, {part.folder for part in parts})

    @classmethod
    def level_table(
        cls, weights: Weights, *, resolution: int | None = None, **other: Any
    ) -> Levels:
        """Return the noise levels that the scheduler's config describes."""
        return cls.make_levels(weights, read_folder(cls, weights, resolution))

    @classmethod
    def token_counts(cls, weights: Weights, texts: Sequence[str]) -> tuple[list[int], int]:
        """Return the tokens of each text for the encoder that takes fewest, and what it takes."""
        shortest = min(cls.encoders(weights), key=lambda encoder: encoder.limit(weights))
        return shortest.counts(weights, texts), shortest.limit(weights)

    @classmethod
    def evaluation_flops(cls, weights: Weights, resolution: int | None = None) -> float:
        """Count the floating-point operations of one evaluation, from the configs alone."""
        return float(count(cls, read_folder(cls, weights, resolution)))

    @classmethod
    def linearisation_cost(cls, weights: Weights, resolution: int | None = None) -> float:
        """Return what a linearised draw costs in evaluations, counted from the configs alone."""
        family: Any = cls  # mypy takes a class for no key of a cache
        return gradient_share(family, weights, resolution)

    @classmethod
    def memory(cls, weights: Weights, dtype: str, **parameters: Any) -> int:
        """Return the bytes that the parts take that are in memory together, at the most."""
        folder = read_folder(cls, weights, parameters.pop("resolution", None))
        parameters.pop("normalize", None)
        encoders = cls.encoders(weights, **parameters)
        texts = zip(encoders, cls.text_configs(weights, encoders), strict=True)
        width = TORCH_DTYPES[dtype].itemsize
        scoring = _size(folder.empty) * width + _size(folder.empty_vae) * 4
        encoding = [_size(build_empty(weights, e.part, c)) * width for e, c in texts]
        return (sum if cls.keeps_encoders else max)([scoring, *encoding])

    @classmethod
    def working_memory(cls, weights: Weights, dtype: str, **parameters: Any) -> int:
        """Return the bytes beside the weights: of one cell, or of one image that is encoded."""
        folder = read_folder(cls, weights, parameters.get("resolution"))
        pixels = (1, 3, folder.resolution, folder.resolution)
        cell = peak_bytes(lambda: call_empty(cls, folder)) * TORCH_DTYPES[dtype].itemsize // 4
        image = peak_bytes(lambda: cls.autoencoder.encode(folder.empty_vae, torch.empty(pixels)))
        return max(cell, image)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return float32 [n, C, H, W]: the posterior's mean, shifted and scaled as configured."""
        return self.posterior(images)[0]

    @torch.inference_mode()
    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents' mean and standard deviation, shifted and scaled as configured."""
        pixels = preprocess(images, self.resolution, self.normalize).to(self.device)
        mean, deviation = self.autoencoder.encode(self.vae, pixels)
        scaling, shift = self._folder.scaling, self._folder.shift
        return (mean.float() - shift) * scaling, deviation.float() * scaling

    def encode_null(self) -> Tree:
        """Return the conditioning of the empty text, as the pipeline's negative prompt is."""
        return self.encode_prompts([""])

    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Any) -> torch.Tensor:
        """Return the network's prediction, [B, C, H, W] in the model's dtype."""
        return self.call(self.network, self._folder, x_t.to(self.dtype), t, conditioning)

    def save_memory(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.network.enable_gradient_checkpointing()

    @cached_property
    def network(self) -> Any:
        """The module that `denoise` calls; the VAE is read with it."""
        config = self._folder.config
        network = load(self.weights, self.network_part, config, self.dtype, self.device)
        _ = self.vae
        return network

    @cached_property
    def vae(self) -> Any:
        """The autoencoder, in float32."""
        part, config = self.autoencoder.part, self._folder.vae_config
        return load(self.weights, part, config, torch.float32, self.device)

    # What families use.

    def encoded(
        self, encoder: TextEncoder, tokens: tuple[torch.Tensor, torch.Tensor], take: Any
    ) -> tuple[torch.Tensor, ...]:
        """Return what `take` returns of the encoder's output, in the model's dtype."""
        [config] = self.text_configs(self.weights, [encoder])
        return encoder.encode(self.weights, config, tokens, take, self.dtype, self.device)

    @staticmethod
    def zeros_like(conditioning: Tree) -> Tree:
        """Return a conditioning of zeros."""
        return mapped(torch.zeros_like, conditioning)

    @staticmethod
    def text_configs(weights: Weights, encoders: Sequence[TextEncoder]) -> list[Mapping[str, Any]]:
        """Return the configs of text encoders."""
        return [
            read_config(weights, encoder.part.folder, "model_type", (encoder.model_type,))
            for encoder in encoders
        ]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
