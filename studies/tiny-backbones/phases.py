"""The phases of a training, on accelerate: autoencoder, denoiser, and a judge of its samples."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from data import Part, Settings, augmented
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel
from losses import WEIGHTS, Losses, discriminative, generative, reconstruction
from networks import TextDenoiser, reset_norms
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import ResNetConfig, ResNetForImageClassification

from bench.engine.images import preprocess

BATCH = 64  # images that are encoded or decoded together
CHECKPOINT_STEPS = 50  # interval between checkpoints, and between lines of the log
INITIAL_LOG_VARIANCE = -6.0  # of the posterior; with noisier latents, faint texture is not learned

bfloat16 = partial(torch.autocast, "cpu", torch.bfloat16)


def rate_factor(step: int, total: int, warm_up: int = 100) -> float:
    """Return the learning rate over its peak: a linear warm-up, then a cosine down to 1 %."""
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Training:
    """The training of one backbone; `folder` is for its checkpoints and its log."""

    recipe: Settings
    train: Part
    folder: Path

    def fit(
        self, phase: str, model: nn.Module, losses: Callable[[int], Losses], steps: int, adam: AdamW
    ) -> None:
        """Train a model in place, from the phase's checkpoint if there is one."""
        accelerator = Accelerator(cpu=True)
        schedule = LambdaLR(adam, partial(rate_factor, total=steps))
        optimiser, rate = accelerator.prepare(adam, schedule)
        denoiser = model if isinstance(model, TextDenoiser) else None
        accelerator.register_for_checkpointing(model, *([denoiser.average] if denoiser else []))
        checkpoint, unfinished = self.folder / phase, self.folder / f"{phase}.tmp"
        if checkpoint.exists():
            accelerator.load_state(str(checkpoint))
        for step in tqdm(range(schedule.last_epoch, steps), phase):
            # The numbers depend on the step alone: a resumed training equals an uninterrupted one.
            torch.manual_seed(self.recipe.seed * 1_000_003 + step)
            terms = losses(step)
            optimiser.zero_grad()
            accelerator.backward(sum(WEIGHTS[name] * loss for name, loss in terms.items()))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            rate.step()
            if denoiser:
                denoiser.mask_early_text()
                denoiser.average.step(denoiser.parameters())
            if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
                values = {name: loss.item() for name, loss in terms.items()}
                with (self.folder / "training.jsonl").open("a") as file:
                    file.write(json.dumps({"phase": phase, "step": step + 1, **values}) + "\n")
                accelerator.save_state(str(unfinished))
                shutil.rmtree(checkpoint, ignore_errors=True)
                unfinished.rename(checkpoint)

    def batch(self, size: int, *seed: int) -> tuple[Tensor, Tensor]:
        """Return the pixels of random views of `size` random images, and their labels."""
        rng = np.random.default_rng((self.recipe.seed, *seed))
        chosen = rng.integers(0, len(self.train.images), size)
        pixels = augmented([self.train.images[i] for i in chosen], self.recipe, rng)
        return pixels.contiguous(memory_format=torch.channels_last), self.train.labels[chosen]

    def autoencoder(self) -> AutoencoderKL:
        """Train on augmented views, and set the scaling factor to 1 / (deviation of latents)."""
        torch.manual_seed(self.recipe.seed)
        vae = AutoencoderKL(**self.recipe.networks["vae"]).to(memory_format=torch.channels_last)
        with torch.no_grad():
            vae.quant_conv.weight[vae.config.latent_channels :] = 0.0
            vae.quant_conv.bias[vae.config.latent_channels :] = INITIAL_LOG_VARIANCE

        def losses(step: int) -> Losses:
            pixels, _ = self.batch(self.recipe.vae_batch, step)
            with bfloat16():
                posterior = vae.encode(pixels).latent_dist
                output = vae.decode(posterior.sample()).sample
            return reconstruction(output, pixels, posterior, self.recipe)

        adam = AdamW(vae.parameters(), 2e-3, betas=(0.9, 0.98), weight_decay=1e-3)
        self.fit("autoencoder", vae, losses, self.recipe.vae_steps, adam)
        vae.eval()
        vae.register_to_config(scaling_factor=1.0)
        latents = encode(vae, preprocess(self.train.images[:512], self.recipe.resolution))
        vae.register_to_config(scaling_factor=1 / latents.std().item())
        return vae

    def views(self, vae: AutoencoderKL) -> Tensor:
        """Return latents of the images and of views of them, float16 ``[n, views, C, H, W]``."""
        recipe, images = self.recipe, self.train.images
        views = [encode(vae, preprocess(images, recipe.resolution)).half()]
        for view in tqdm(range(1, recipe.views), "views"):
            pixels = augmented(images, recipe, np.random.default_rng((recipe.seed, 7, view)))
            with bfloat16():
                views.append(encode(vae, pixels).half())
        return torch.stack(views, dim=1).contiguous()

    def denoiser(
        self, model: TextDenoiser, latents: Tensor, phase: str, settings: Settings
    ) -> None:
        """Train a denoiser on the latents of `views`; its weights become their average."""
        recipe = self.recipe

        def losses(step: int) -> Losses:
            rng = random.Random(recipe.seed * 1_000_003 + step)
            captions = recipe.captions.draw(rng)
            chosen = torch.randint(len(latents), (settings.batch,))
            x_0 = latents[chosen, torch.randint(latents.shape[1], (settings.batch,))].float()
            labels = self.train.labels[chosen]
            model.train()
            with bfloat16():
                if settings is recipe:
                    return generative(model, x_0, labels, captions)
                captions += recipe.captions.draw_others(rng)
                return discriminative(model, x_0, labels, captions, settings)

        reset_norms(model.unet)
        parameters, decay = list(model.parameters()), recipe.ema_decay
        # In a later phase, the average needs no warm-up: it starts from that of the earlier one.
        late = {"min_decay": decay, "update_after_step": -1} if settings is not recipe else {}
        model.average = EMAModel(parameters, decay, **late)
        betas, rate = (0.9, 0.98), settings.learning_rate
        adam = AdamW(parameters, rate, betas=betas, weight_decay=recipe.weight_decay)
        self.fit(phase, model, losses, settings.steps, adam)
        model.average.copy_to(parameters)
        model.eval()

    def judge(self, vae: AutoencoderKL) -> ResNetForImageClassification:
        """Train a small classifier of pixels, which shares no weights with the other networks.

        Half of the views are reconstructed: a judge of original images only would react to the blur
        of samples, which come out of the decoder.
        """
        torch.manual_seed(self.recipe.seed)
        judge = ResNetForImageClassification(ResNetConfig(**self.recipe.networks["judge"]))

        def losses(step: int) -> Losses:
            pixels, labels = self.batch(48, 11, step)
            pixels[::2] = reconstruct(vae, pixels[::2])
            return {"loss": judge(pixels, labels=labels).loss}

        adam = AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
        self.fit("judge", judge, losses, self.recipe.judge_steps, adam)
        return judge.eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return float32 latents as a backbone does: the posterior's mean times the scaling factor."""
    means = [vae.encode(chunk).latent_dist.mean for chunk in torch.split(pixels, BATCH)]
    latents: Tensor = torch.cat(means) * vae.config.scaling_factor
    return latents


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode and decode images with the autoencoder, float32 ``[n, 3, size, size]``."""
    return torch.cat([vae(chunk).sample for chunk in torch.split(pixels, BATCH)]).clamp(-1, 1)
