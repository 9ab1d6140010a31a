"""Autoencoders of pipelines: what they are made from, and what they make of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL

from bench_plugins.backbones._checkpoint import ModelPart, diffusers_part

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Autoencoder:
    """A kind of autoencoder.

    Attributes:
        part: its module.
        class_name: the name of its class in configs.
        factor: returns how many pixels a side of a latent's pixel stands for, from the config.
        encode: pixels → mean and standard deviation of the latents, unscaled.
    """

    part: ModelPart
    class_name: str
    factor: Callable[[Mapping[str, Any]], int]
    encode: Callable[[Any, torch.Tensor], Pair]


def _kl(vae: Any, pixels: torch.Tensor) -> Pair:
    posterior = vae.encode(pixels).latent_dist
    return posterior.mean, posterior.std


def _deep(vae: Any, pixels: torch.Tensor) -> Pair:
    latent = vae.encode(pixels).latent
    return latent, torch.zeros_like(latent)


# What its attention was called before diffusers 0.13; Stable Diffusion's files still do.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _kl_name(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts:
        parts = [_OLD_ATTENTION.get(part, part) for part in parts]
    return ".".join(parts)


KL = Autoencoder(
    diffusers_part("vae", AutoencoderKL, renamed=_kl_name),
    AutoencoderKL.__name__,
    lambda config: 2 ** (len(config["block_out_channels"]) - 1),
    _kl,
)
DEEP = Autoencoder(
    diffusers_part("vae", AutoencoderDC),
    AutoencoderDC.__name__,
    lambda config: 2 ** (len(config["encoder_block_out_channels"]) - 1),
    _deep,
)
