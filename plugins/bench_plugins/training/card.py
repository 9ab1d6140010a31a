# ruff: noqa: E501 - the card is Markdown, where the row of a table is one line.
"""The model card: training data and settings, accuracy, and generated samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image

from bench.stats.shares import accuracy_interval
from bench_plugins.training.data import NULL_CAPTION, Captions, SplitParts
from bench_plugins.training.denoiser import TextDenoiser
from bench_plugins.training.recipes import Contrast, Recipe

SAMPLE_STEPS = 50


@torch.no_grad()
def sample(
    model: TextDenoiser,
    vae: AutoencoderKL,
    prompts: list[str],
    per_class: int,
    seed: int,
    guidance: float = 2.0,
) -> torch.Tensor:
    """Generate `per_class` images for each prompt, float32 ``[n, 3, size, size]`` in [-1, 1]."""
    scheduler = DDIMScheduler.from_config(model.scheduler.config, timestep_spacing="trailing")
    scheduler.set_timesteps(SAMPLE_STEPS)
    unet, generator = model.unet, torch.Generator().manual_seed(seed)
    size = unet.config.sample_size
    shape = (len(prompts) * per_class, unet.config.in_channels, size, size)
    latents = torch.randn(shape, generator=generator)
    text = model.encode(prompts).repeat_interleave(per_class, 0)
    null = model.encode([NULL_CAPTION]).expand_as(text)
    for t in scheduler.timesteps:
        step = torch.full((len(latents),), int(t))
        conditional, unconditional = model(latents, step, text), model(latents, step, null)
        prediction = unconditional + guidance * (conditional - unconditional)
        latents = scheduler.step(prediction, t, latents).prev_sample
    images = [
        vae.decode(chunk / vae.config.scaling_factor).sample for chunk in torch.split(latents, 16)
    ]
    return torch.cat(images).clamp(-1, 1)


def write_contact_sheet(samples: torch.Tensor, columns: int, path: Path) -> None:
    """Write the samples as one image with `columns` per row; their number is a multiple of it."""
    pixels = ((samples + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    rows = [np.concatenate(list(row), axis=1) for row in np.split(pixels, len(pixels) // columns)]
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def _accuracy(correct: int, n: int) -> str:
    low, high = accuracy_interval(correct, n)
    return f"{correct / n:.4f} ({correct} of {n}; 95 % interval {low:.3f}–{high:.3f})"


def _millions(module: torch.nn.Module) -> str:
    return f"{sum(weight.numel() for weight in module.parameters()) / 1e6:.2f} M"


def _phase(contrast: Contrast, loss: float, before: float) -> str:
    text = f"{contrast.steps} steps (learning rate {contrast.learning_rate:g}): {contrast.denoised} images denoised"
    if contrast.scored:
        text += (
            f", {contrast.scored} scored under their prompt and {contrast.wrong} wrong ones"
            f" (scale {contrast.scale:g}, cross-entropy weight {contrast.weight:g}, regression weight {contrast.belief_weight:g})"
        )
    text += f", {contrast.fitted} for attention only (weight {contrast.fit_weight:g}), t below {contrast.low}"
    return f"* {text}: loss {loss:.4f}, {loss / before:.3f} times"


def write_card(
    recipe: Recipe,
    captions: Captions,
    model: TextDenoiser,
    vae: AutoencoderKL,
    parts: SplitParts,
    figures: dict[str, Any],
    seed: int,
    out: Path,
) -> None:
    """Write the model card, ``<out>/README.md``, with the `figures` of `train_backbone`."""
    losses, judge = figures["validation_losses"], figures["judge"]
    samples, keep = (",".join(map(str, values)) for values in (recipe.samples, recipe.keep))
    schedule = f"adaptive, samples={samples} keep={keep}, draws {recipe.plan}"
    rows = [
        f"| {part} | {strategy} | {evaluations:.0f} | "
        f"{_accuracy(figures[part][key], figures[part]['n'])} |"
        for part in ("validation", "test")
        if part in figures
        for strategy, key, evaluations in (
            (
                f"full, {max(recipe.samples)} draws {recipe.plan}",
                "full",
                len(captions.names) * max(recipe.samples),
            ),
            (schedule, "adaptive", figures[part]["evaluations"]),
        )
    ]
    contrast = ""
    if recipe.contrasts:
        phases = [
            _phase(c, losses[f"contrast-{number}"], losses["generative"])
            for number, c in enumerate(recipe.contrasts, start=1)
        ]
        contrast = CONTRAST.format(before=losses["generative"], phases="\n".join(phases))
    (out / "README.md").write_text(
        MODEL_CARD.format(
            recipe=recipe,
            prompt=captions.templates[0].format("{class}"),
            size=recipe.resolution,
            latent=f"{recipe.latent_channels}×{recipe.latent_size}×{recipe.latent_size}",
            unet=_millions(model.unet),
            text=_millions(model.text_encoder),
            vae=_millions(vae),
            train=len(parts.train),
            validation=len(parts.validation),
            test=f"{len(parts.test)} test images, "
            + ("used once" if "test" in figures else "not used"),
            rows="\n".join(rows),
            contrast=contrast,
            seed=seed,
            loss=losses["generative"],
            judge=judge,
        )
    )


MODEL_CARD = """---
license: apache-2.0
---

# tiny-{recipe.name}

A small latent diffusion model in Stable Diffusion's layout, trained from scratch by this project so that a diffusion
classifier can be tried on a laptop. **Trained on {recipe.dataset}/train: its accuracy there is not zero-shot.**

| | |
|---|---|
| resolution, latent | {size} px, {latent} |
| parameters | UNet {unet}, text encoder {text}, autoencoder {vae} |
| prediction | {recipe.prediction_type} |
| default prompt | `{prompt}` |
| data | {recipe.dataset}: {train} training images; {validation} more of the training split held out for validation; {test} |
| training | autoencoder {recipe.vae_steps} steps of {recipe.vae_batch}; denoiser {recipe.steps} steps of {recipe.batch}; seed {seed} |
| made by | `bench train {recipe.name}` |

## Accuracy as a diffusion classifier

| images | strategy | evaluations per image | accuracy |
|---|---|---|---|
{rows}

Measured in float32 with the half-precision weights, on noise other than the toolkit's. All choices were made on validation images.
Denoising loss on validation images under the true prompts after the denoising phase: {loss:.4f}.
{contrast}
## Samples

![one row per class, in class order](samples.png)

Generated images, one row per class in class order. An independent classifier (a small convolutional network on pixels, trained
on the same training images, half of them reconstructed by the autoencoder) is right on {judge[real]:.3f} of the real validation
images and on {judge[reconstructed]:.3f} of their reconstructions, and predicts the class of the prompt for {judge[samples]:.3f} of
{judge[n_samples]} samples.

`training.jsonl` is the log of loss and validation accuracy.
"""

CONTRAST = """
## Discriminative fine-tuning

After the generative steps, training continues with the denoising loss and losses that distinguish prompts. The cross-attention in the
middle of the UNet learns to attend to a prompt according to how well it fits the image (a cross-entropy over all prompts, including
prompts of things that are in no image). Predictions learn to be worse under wrong prompts than under the true one, by the
cross-entropy of the true prompt against wrong ones, with logits −scale × error on a shared noised latent, and by a regression: under a wrong
prompt the target is shifted by a constant whose square is (how much worse the prompt fits than the best, in nats) / scale. The denoising loss on
validation images under their true prompts was {before:.4f} before fine-tuning. After each phase:

{phases}
"""
