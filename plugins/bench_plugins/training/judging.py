"""Evaluation of a trained model: as a diffusion classifier, and by a classifier of its samples.

The diffusion classifier here is independent of the toolkit's engine on purpose, so that the errors
of one check those of the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from bench.contracts.dataset import Sample
from bench.contracts.decision import Interview
from bench.contracts.strategy import Evaluate, Problem
from bench.inputs.draws import parse_plan
from bench_plugins.strategies.adaptive import Adaptive
from bench_plugins.training.data import LabelledImages, augmented
from bench_plugins.training.denoiser import TextDenoiser
from bench_plugins.training.loop import Phase
from bench_plugins.training.recipes import Recipe

CELLS_PER_CALL = 168


def draw_errors(
    model: TextDenoiser,
    latents: torch.Tensor,
    prompts: list[str],
    draws: int,
    seed: int = 0,
    plan: str = "grid",
) -> np.ndarray:
    """Return the errors of all cells, float32 ``[images, draws, prompts]``.

    The timesteps are the toolkit's, the noise is not. Leaves the model in evaluation mode.
    """
    total = len(model.alphas_cumprod)
    timesteps = parse_plan(plan).assign_levels(draws, total).tolist()
    noise = torch.randn((draws, *latents.shape[1:]), generator=torch.Generator().manual_seed(seed))
    errors = np.empty((len(latents), draws, len(prompts)), np.float32)
    images = max(1, CELLS_PER_CALL // len(prompts))
    model.eval()
    with torch.no_grad():
        text = model.encode(prompts)
        for k, t in enumerate(timesteps):
            for first in range(0, len(latents), images):
                x_0 = latents[first : first + images].float()
                step = torch.full((len(x_0),), t)
                x_t, target = model.corrupt(x_0, noise[k].expand_as(x_0), step)
                cells = x_t.repeat_interleave(len(prompts), 0)
                output = model(
                    cells, step.repeat_interleave(len(prompts)), text.repeat(len(x_0), 1, 1)
                )
                difference = output.float() - target.repeat_interleave(len(prompts), 0)
                error = difference.square().mean((1, 2, 3)).view(len(x_0), -1)
                errors[first : first + images, k] = error.numpy()
    return errors


def full(errors: np.ndarray) -> np.ndarray:
    """Return the prompt with the lowest mean error over all draws, int64 [images]."""
    predictions: np.ndarray = errors.mean(1).argmin(-1)
    return predictions


def adaptive(
    errors: np.ndarray, samples: tuple[int, ...], keep: tuple[int, ...]
) -> tuple[np.ndarray, float]:
    """Return each image's prompt by the strategy `adaptive`, and the evaluations per image."""
    images, draws, prompts = errors.shape
    problem = Problem(np.arange(prompts), np.arange(draws), np.ones(draws))
    strategy = Adaptive(samples, keep, draws=draws)
    predictions, evaluations = [], 0
    for table in errors:
        interview = Interview(Sample("", 0, {}), strategy, problem)
        while (request := interview.ask()) is not None:
            assert isinstance(request, Evaluate)
            interview.tell(request, table[np.ix_(request.draws, request.prompts)].T)
        assert interview.decided.outcome is not None
        predictions.append(interview.decided.outcome.ranking[0])
        evaluations += interview.decided.evaluations
    return np.array(predictions), evaluations / images


JUDGE_BATCH = 48
JUDGE_LEARNING_RATE = 2e-3


class Judge(nn.Module):
    """A small convolutional classifier of pixels that shares no weights with the trained model."""

    def __init__(self, classes: int, resolution: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width, size = 3, resolution
        for wider in (24, 48, 96, 160):
            stride = 2 if size > 4 else 1
            layers += [nn.Conv2d(width, wider, 3, stride, 1), nn.BatchNorm2d(wider), nn.ReLU()]
            layers += [nn.Conv2d(wider, wider, 3, 1, 1), nn.BatchNorm2d(wider), nn.ReLU()]
            width, size = wider, size // stride
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(width, classes))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits ``[n, classes]``."""
        logits: Tensor = self.head(self.features(pixels).mean((2, 3)))
        return logits


def train_judge(
    recipe: Recipe, train: LabelledImages, vae: AutoencoderKL, classes: int, folder: Path, seed: int
) -> Judge:
    """Train the judge on augmented views, every other one of them reconstructed.

    Samples come out of a decoder; a judge of original images only would react to its blur.
    """
    torch.manual_seed(seed)
    judge = Judge(classes, recipe.resolution)
    cast(Any, judge).to(memory_format=torch.channels_last)  # missing in some type stubs of torch
    optimiser = torch.optim.AdamW(judge.parameters(), JUDGE_LEARNING_RATE, weight_decay=0.02)
    labels = torch.from_numpy(train.labels)
    parts = {"judge": judge, "optimiser": optimiser}
    phase = Phase("judge", recipe.judge_steps, JUDGE_LEARNING_RATE, folder, seed, **parts)
    for step in phase.steps():
        rng = np.random.default_rng((seed, 11, step))
        chosen = rng.integers(0, len(train), JUDGE_BATCH)
        pixels = augmented([train.images[i] for i in chosen], recipe, rng)
        pixels[::2] = reconstruct(vae, pixels[::2])
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(pixels.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.05)
        phase.descend(loss)
        phase.log_losses(loss=loss)
    judge.eval()
    return judge


def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode and decode images with the autoencoder, float32 ``[n, 3, size, size]``."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latents = [vae.encode(chunk).latent_dist.mean for chunk in torch.split(pixels, JUDGE_BATCH)]
        images = [vae.decode(chunk).sample.float() for chunk in latents]
    return torch.cat(images).clamp(-1, 1)


def accuracy(judge: Judge, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of images for which the judge predicts the label."""
    with torch.no_grad():
        chunks = torch.split(pixels, JUDGE_BATCH)
        predictions = torch.cat([judge(chunk).argmax(1) for chunk in chunks])
    return (predictions == labels).float().mean().item()
