"""Stable Diffusion and every pipeline of its shape: VAE, CLIP text encoder, conditional UNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel, CLIPTokenizer

from bench.engine.images import NORMALIZATIONS, preprocess
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._folding import fold_prompts

diffusers.logging.set_verbosity_error()
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class StableDiffusion:
    """A latent text-to-image diffusion model in diffusers' folder layout.

    The five parts are loaded separately, from safetensors only, each when it is first needed:
    the pipeline class would bring a safety checker, and cached embeddings need no text encoder.
    Everything else is read from the configs.

    Args:
        weights: a folder or a Hub repository.
        device: a torch device.
        dtype: float32, bfloat16 or float16, of UNet and text encoder. The VAE stays in float32:
            it runs once an image, and SD's overflows in float16.
        normalize: `half` or `cifar10`.
        resolution: image side in pixels; None: what the model was made for.

    Raises:
        UserError: a part is missing or of a kind that this class does not know.
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
        if normalize not in NORMALIZATIONS:
            raise UserError(f"--normalize {normalize!r}: one of {', '.join(NORMALIZATIONS)}.")
        self.weights = weights
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype]
        self.normalize = normalize
        unet, vae = self._config(UNet2DConditionModel, "unet"), self._config(AutoencoderKL, "vae")
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        self.resolution = resolution or unet["sample_size"] * factor
        if self.resolution % factor:
            raise UserError(f"--resolution {self.resolution} must be a multiple of {factor}.")
        side = self.resolution // factor
        self.latent_shape = (unet["in_channels"], side, side)
        self.scaling = vae.get("scaling_factor") or 0.18215
        self.shift = vae.get("shift_factor") or 0.0
        scheduler = self._load(DDPMScheduler, "scheduler")
        self.prediction_type: str = scheduler.config.prediction_type
        self.alphas_cumprod = scheduler.alphas_cumprod.numpy()

    @cached_property
    def unet(self) -> Any:
        """The denoiser."""
        return self._module(UNet2DConditionModel, "unet", self.dtype)

    @cached_property
    def vae(self) -> Any:
        """The autoencoder."""
        return self._module(AutoencoderKL, "vae", torch.float32)

    @cached_property
    def text_encoder(self) -> Any:
        """The text encoder."""
        return self._module(CLIPTextModel, "text_encoder", self.dtype)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self._load(CLIPTokenizer, "tokenizer")

    @staticmethod
    def token_counts(weights: Weights, texts: Sequence[str]) -> tuple[list[int], int]:
        """Return the tokens of each text, start and end included, and the most there may be."""
        tokenizer = _load_part(CLIPTokenizer, weights, "tokenizer")
        return [len(ids) for ids in tokenizer(list(texts)).input_ids], tokenizer.model_max_length

    @staticmethod
    def evaluation_flops(weights: Weights, resolution: int | None = None) -> float:
        """Count the floating-point operations of one evaluation, from the configs alone.

        The UNet is built without memory for its weights (torch's meta device) and called once.
        """
        backbone = StableDiffusion(weights, resolution=resolution)
        config = backbone._config(UNet2DConditionModel, "unet")
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
            x_t = torch.empty(1, *backbone.latent_shape)
            tokens = backbone.tokenizer.model_max_length
            conditioning = torch.empty(1, tokens, config["cross_attention_dim"])
            with FlopCounterMode(display=False) as counter:
                unet(x_t, torch.empty(1), conditioning)
        return float(counter.get_total_flops())

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return float32 [n, C, H, W]: the posterior's mean, shifted and scaled as configured."""
        pixels = preprocess(images, self.resolution, self.normalize).to(self.device)
        mean = self.vae.encode(pixels).latent_dist.mean
        return (mean.float() - self.shift) * self.scaling

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
        return self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]

    def denoise(
        self, x_t: torch.Tensor, t: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Return the UNet's prediction, [B, C, H, W] in the model's dtype."""
        return self.unet(x_t.to(self.dtype), t, conditioning, return_dict=False)[0]

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

    def _module(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        options = {"use_safetensors": True, "torch_dtype": dtype}
        # Half the download where half precision is all that is asked for.
        first, second = ("fp16", None) if dtype == torch.float16 else (None, "fp16")
        # Parts are loaded when first needed, and parameters made in inference mode could not take
        # part in a backward pass.
        with torch.inference_mode(False):
            try:
                module = self._load(kind, part, variant=first, **options)
            except UserError as error:
                try:
                    module = self._load(kind, part, variant=second, **options)
                except UserError:
                    raise error from None
            return module.to(self.device).eval().requires_grad_(False)

    def _load(self, kind: Any, part: str, **options: Any) -> Any:
        return _load_part(kind, self.weights, part, **options)

    def _config(self, kind: Any, part: str) -> dict[str, Any]:
        return dict(_explained(kind.load_config, self.weights, part))


def _load_part(kind: Any, weights: Weights, part: str, **options: Any) -> Any:
    return _explained(kind.from_pretrained, weights, part, **options)


def _explained(load: Any, weights: Weights, part: str, **options: Any) -> Any:
    """Load a part of the pipeline, or say which one cannot be had and from where."""
    try:
        return load(weights.location, subfolder=part, revision=weights.revision, **options)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"The pipeline {weights.location} has no {part}/ that can be loaded:"
            f" {str(error).splitlines()[0]}\n"
            "A Stable Diffusion pipeline in diffusers' layout is wanted (unet/ vae/ text_encoder/"
            " tokenizer/ scheduler/), with weights in safetensors."
        ) from error
