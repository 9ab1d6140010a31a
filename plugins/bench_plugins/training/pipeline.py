"""The whole training of one backbone, from data to a pipeline folder with weights."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from bench.engine.images import preprocess
from bench_plugins.training import autoencoder, card, data, denoiser, judging, learning
from bench_plugins.training.data import read_captions, train_tokenizer
from bench_plugins.training.denoiser import bake
from bench_plugins.training.recipes import RECIPES

TEST_SEED = 0


def train_backbone(
    name: str,
    data_dir: Path | None,
    out: Path,
    seed: int,
    steps: int | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Train the recipe `name`, write the pipeline folder `out` and return the figures of its card.

    Checkpoints and the log are written to ``<out>.training``; delete that folder to start over. If
    `steps` replaces the recipe's, the fine-tuning phases are scaled in proportion.
    """
    recipe = RECIPES[name]
    captions = read_captions(recipe)
    if steps is not None:
        recipe = dataclasses.replace(
            recipe,
            steps=steps,
            contrasts=tuple(
                dataclasses.replace(contrast, steps=max(1, steps * contrast.steps // recipe.steps))
                for contrast in recipe.contrasts
            ),
        )
    work = out.with_name(out.name + ".training")
    work.mkdir(parents=True, exist_ok=True)
    parts = data.load(recipe, data_dir, seed)
    tokenizer = train_tokenizer(captions, recipe.text_length, work / "tokenizer")

    vae = autoencoder.train_autoencoder(recipe, parts.train, work, seed)
    train = (
        autoencoder.encode_views(vae, recipe, parts.train, work, seed),
        torch.from_numpy(parts.train.labels),
    )
    validation = (
        autoencoder.encode_part(vae, recipe, parts.validation),
        torch.from_numpy(parts.validation.labels),
    )

    torch.manual_seed(seed)
    model = denoiser.TextDenoiser(recipe, tokenizer)
    model = learning.train_denoiser(recipe, model, captions, train, validation, work, seed)
    losses = {"generative": learning.own_loss(model, captions, validation, recipe.loss_draws)}
    for number, contrast in enumerate(recipe.contrasts, start=1):
        phase = f"contrast-{number}"
        model = learning.train_denoiser(
            recipe, model, captions, train, validation, work, seed, phase, contrast
        )
        losses[phase] = learning.own_loss(model, captions, validation, recipe.loss_draws)

    bake(model.unet)
    save(vae, model, out)
    figures: dict[str, Any] = {"validation_losses": losses}
    for part_name in ("validation", "test") if test else ("validation",):
        part = getattr(parts, part_name)
        latents = autoencoder.encode_part(vae, recipe, part)
        errors = judging.draw_errors(
            model, latents, captions.prompts, max(recipe.samples), TEST_SEED, recipe.plan
        )
        np.save(work / f"{part_name}_errors.npy", errors)  # for choosing a schedule
        predictions, evaluations = judging.adaptive(errors, recipe.samples, recipe.keep)
        figures[part_name] = {
            "n": len(part),
            "full": int((judging.full(errors) == part.labels).sum()),
            "adaptive": int((predictions == part.labels).sum()),
            "evaluations": evaluations,
        }
    samples = card.sample(model, vae, captions.prompts, per_class=8, seed=seed)
    judge = judging.train_judge(recipe, parts.train, vae, len(captions.names), work, seed)
    sample_labels = torch.arange(len(captions.names)).repeat_interleave(8)
    real, labels = preprocess(parts.validation.images, recipe.resolution), validation[1]
    figures["judge"] = {
        "real": judging.accuracy(judge, real, labels),
        "reconstructed": judging.accuracy(judge, judging.reconstruct(vae, real), labels),
        "samples": judging.accuracy(judge, samples, sample_labels),
        "n_samples": len(samples),
    }
    card.write_contact_sheet(samples, 8, out / "samples.png")
    shutil.copy(work / "training.jsonl", out / "training.jsonl")
    card.write_card(recipe, captions, model, vae, parts, figures, seed, out)
    return figures


def save(vae: torch.nn.Module, model: denoiser.TextDenoiser, out: Path) -> None:
    """Write a Stable Diffusion pipeline folder with half-precision safetensors.

    Rounds the weights in place, so that the saved weights are evaluated.
    """
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=model.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(out, safe_serialization=True)
    pipeline.to(dtype=torch.float32)
    model.tokenizer.backend_tokenizer.model.save(str(out / "tokenizer"))
