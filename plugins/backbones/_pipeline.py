"""What the folder of a Stable Diffusion pipeline holds, checked before a tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import Part, build_empty, first_line
from bench_plugins.backbones._configs import (
    NoiseTable,
    is_whole,
    read_config,
    read_noise_table,
    read_scaling,
)
from bench_plugins.backbones._flops import call_unet
from bench_plugins.backbones._folding import uses_prompts
from bench_plugins.backbones._tokenizer import load_tokenizer

LARGEST_LATENT = 1024  # side of a latent; the largest known models have 128

# What a VAE's attention was called before diffusers 0.13; Stable Diffusion's files still do.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _vae_name(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts:
        parts = [_OLD_ATTENTION.get(part, part) for part in parts]
    return ".".join(parts)


UNET = Part("unet", "diffusion_pytorch_model", UNet2DConditionModel.from_config)
VAE = Part("vae", "diffusion_pytorch_model", AutoencoderKL.from_config, _vae_name)
# Versions of transformers before 5.6 put `text_model.` before every name.
TEXT_ENCODER = Part(
    "text_encoder",
    "model",
    lambda config: CLIPTextModel(CLIPTextConfig.from_dict(dict(config))),
    lambda name: name.removeprefix("text_model."),
    unused=("text_model.embeddings.position_ids", "embeddings.position_ids"),  # 0, 1, 2 …
)
CLASSES = {
    UNET: ("_class_name", ("UNet2DConditionModel",)),
    VAE: ("_class_name", ("AutoencoderKL",)),
    TEXT_ENCODER: ("model_type", ("clip_text_model",)),
}


@dataclass(frozen=True)
class Pipeline:
    """What a pipeline's configs say, checked.

    Attributes:
        configs: of the parts that hold tensors.
        empty: these parts without memory for their tensors.
        latent_shape: (C, H, W).
        resolution: image side in pixels.
        prompt_shape: (L, D) of a conditioning.
    """

    configs: Mapping[Part, Mapping[str, Any]]
    empty: Mapping[Part, Any]
    latent_shape: tuple[int, int, int]
    resolution: int
    prompt_shape: tuple[int, int]
    scaling: float
    shift: float
    noise: NoiseTable


@lru_cache(maxsize=2)
def read_pipeline(weights: Weights, resolution: int | None) -> Pipeline:
    """Read the configs and the tokenizer, and check that the parts fit each other.

    Args:
        weights: the pipeline.
        resolution: image side in pixels; None: what the model was made for.

    Raises:
        UserError: a part is missing, of a kind that this class does not know, or does not fit.
    """
    configs = {part: read_config(weights, part.folder, *CLASSES[part]) for part in CLASSES}
    scaling, shift = read_scaling(weights, configs[VAE])
    noise = read_noise_table(weights)
    empty: dict[Part, Any] = {part: build_empty(weights, part, configs[part]) for part in CLASSES}
    unet, vae = empty[UNET].config, empty[VAE].config
    if not is_whole(unet.sample_size) or not 1 <= unet.sample_size <= LARGEST_LATENT:
        raise weights.error(
            "unet/config.json",
            f"says sample_size {unet.sample_size!r:.100}; 1 to {LARGEST_LATENT} is possible",
        )
    factor = 2 ** (len(vae.block_out_channels) - 1)
    resolution = resolution or unet.sample_size * factor
    if resolution % factor or not 1 <= resolution // factor <= LARGEST_LATENT:
        raise UserError(
            f"--resolution {resolution} must be a multiple of {factor}, at most"
            f" {LARGEST_LATENT * factor}."
        )
    side = resolution // factor
    pipeline = Pipeline(
        configs,
        empty,
        (unet.in_channels, side, side),
        resolution,
        (load_tokenizer(weights).model_max_length, empty[TEXT_ENCODER].config.hidden_size),
        scaling,
        shift,
        noise,
    )
    with torch.no_grad():
        _try_unet(weights, pipeline)
        _try_vae(weights, pipeline)
    return pipeline


def _try_unet(weights: Weights, pipeline: Pipeline) -> None:
    """Refuse a UNet that takes no prompts, or not these, or predicts something else."""
    if not uses_prompts(pipeline.empty[UNET]):
        raise weights.error("unet/config.json", "describes a model that takes no prompts")
    try:
        found = call_unet(pipeline.empty[UNET], pipeline.latent_shape, pipeline.prompt_shape)
    except Exception as error:  # whatever diffusers raises where shapes or arguments do not fit
        raise weights.error(
            "unet/",
            f"does not take latents {list(pipeline.latent_shape)} and the text encoder's prompts"
            f" {list(pipeline.prompt_shape)}: {first_line(error)}",
        ) from error
    if found.shape[1:] != pipeline.latent_shape:
        raise weights.error(
            "unet/", f"predicts {list(found.shape[1:])} for latents {list(pipeline.latent_shape)}"
        )


def _try_vae(weights: Weights, pipeline: Pipeline) -> None:
    """Call the empty VAE as `encode_images` does."""
    try:
        with torch.device("meta"):
            pixels = torch.empty(1, 3, pipeline.resolution, pipeline.resolution)
            found = pipeline.empty[VAE].encode(pixels).latent_dist.mean.shape[1:]
    except Exception as error:  # as above
        raise weights.error("vae/", f"does not encode pictures: {first_line(error)}") from error
    if tuple(found) != pipeline.latent_shape:
        raise weights.error(
            "vae/",
            f"encodes a picture as {list(found)}; the unet/ wants {list(pipeline.latent_shape)}",
        )
