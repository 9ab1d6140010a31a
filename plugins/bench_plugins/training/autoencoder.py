"""The autoencoder, which turns images into latents that keep texture, and its training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file

from bench.engine.images import preprocess
from bench_plugins.training.data import LabelledImages, augmented
from bench_plugins.training.loop import Phase
from bench_plugins.training.recipes import Recipe

VAE_BATCH = 64
INITIAL_LOG_VARIANCE = -6.0  # of the posterior; with noisier latents, faint texture is not learned


def build_autoencoder(recipe: Recipe) -> AutoencoderKL:
    """Return an untrained autoencoder with a narrow posterior."""
    depth = len(recipe.vae_channels)
    vae = AutoencoderKL(
        block_out_channels=recipe.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        layers_per_block=1,
        latent_channels=recipe.latent_channels,
        norm_num_groups=8,
        sample_size=recipe.resolution,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        vae.quant_conv.weight[recipe.latent_channels :] = 0.0
        vae.quant_conv.bias[recipe.latent_channels :] = INITIAL_LOG_VARIANCE
    return vae


def reconstruction_loss(output: torch.Tensor, pixels: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Return the mean absolute error of lightness and colour, plus that of their gradients.

    The gradients are differences between neighbouring pixels. They keep texture, which a loss on
    pixels alone would blur, and which distinguishes land uses. Colour has a weight above its share
    of the pixels' variance, because it would otherwise be learned late.
    """
    luma, red_blue, green = (1 / 3) ** 0.5, 0.5**0.5, (1 / 6) ** 0.5
    colour = recipe.colour_weight
    axes = torch.tensor(
        [
            [luma, luma, luma],
            [colour * red_blue, 0.0, -colour * red_blue],
            [colour * green, -2 * colour * green, colour * green],
        ]
    )
    difference = torch.einsum("ij,bjhw->bihw", axes, output.float() - pixels)
    across, down = difference.diff(dim=3).abs().mean(), difference.diff(dim=2).abs().mean()
    return difference.abs().mean() + recipe.edge_weight * (across + down)


def train_autoencoder(
    recipe: Recipe, train: LabelledImages, folder: Path, seed: int
) -> AutoencoderKL:
    """Train on augmented views, and set the scaling factor to 1 / (deviation of the latents)."""
    torch.manual_seed(seed)
    vae = build_autoencoder(recipe).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        vae.parameters(), recipe.vae_learning_rate, betas=(0.9, 0.98), weight_decay=1e-3
    )
    steps, peak = recipe.vae_steps, recipe.vae_learning_rate
    phase = Phase("autoencoder", steps, peak, folder, seed, vae=vae, optimiser=optimiser)
    for step in phase.steps():
        rng = np.random.default_rng((seed, step))
        chosen = rng.integers(0, len(train), recipe.vae_batch)
        pixels = augmented([train.images[i] for i in chosen], recipe, rng)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist
            output = vae.decode(posterior.sample()).sample
        reconstruction = reconstruction_loss(output, pixels, recipe)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = reconstruction + recipe.kl_weight * kl
        phase.descend(loss, max_norm=1.0)
        phase.log_losses(loss=loss, l1=(output.float() - pixels).abs().mean(), kl=kl)
    vae.eval()
    if recipe.vae_steps:
        pixels = preprocess(train.images[:512], recipe.resolution)
        vae.register_to_config(scaling_factor=1.0)
        vae.register_to_config(scaling_factor=1 / encode(vae, pixels).std().item())
    return vae


def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """Return float32 latents as a backbone does: the posterior's mean times the scaling factor."""
    with torch.no_grad():
        means = [vae.encode(chunk).latent_dist.mean for chunk in torch.split(pixels, VAE_BATCH)]
    latents: torch.Tensor = torch.cat(means) * vae.config.scaling_factor
    return latents


def encode_part(vae: AutoencoderKL, recipe: Recipe, part: LabelledImages) -> torch.Tensor:
    """Return the latents of unaugmented images, float32 ``[n, channels, size, size]``."""
    return encode(vae, preprocess(part.images, recipe.resolution))


def encode_views(
    vae: AutoencoderKL, recipe: Recipe, part: LabelledImages, folder: Path, seed: int
) -> torch.Tensor:
    """Return latents of several views per image, float16 ``[n, views, channels, size, size]``.

    The first view is the unaugmented image. The latents are stored next to the checkpoints, so that
    the denoiser's training does not need the autoencoder.
    """
    path = folder / "latents.safetensors"
    if path.exists():
        return load_file(path)["latents"]
    views = [encode_part(vae, recipe, part).half()]
    for view in track(range(1, recipe.views), "views", console=Console(stderr=True)):
        rng = np.random.default_rng((seed, 7, view))
        pixels = augmented(part.images, recipe, rng)
        with torch.autocast("cpu", torch.bfloat16):
            views.append(encode(vae, pixels).half())
    latents = torch.stack(views, dim=1).contiguous()
    save_file({"latents": latents}, path)
    return latents
