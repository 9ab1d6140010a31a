"""An independent classifier of pixels: are samples of the model recognised as their class?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.engine.images import preprocess
from bench_plugins.training.data import Part, augment
from bench_plugins.training.loop import learning_rate, log, resumable

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from bench_plugins.training.recipes import Recipe

BATCH = 48
PEAK = 2e-3


class Judge(nn.Module):
    """A small convolutional network that shares nothing with the model it judges."""

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
        """Logits ``[n, classes]``."""
        logits: Tensor = self.head(self.features(pixels).mean((2, 3)))
        return logits


def train_judge(
    recipe: Recipe, train: Part, vae: AutoencoderKL, classes: int, folder: Path, seed: int
) -> Judge:
    """Train on augmented views of the training images, every other one through the autoencoder.

    Samples come out of its decoder: a judge who has not seen what that blurs would judge the blur.
    """
    torch.manual_seed(seed)
    judge = Judge(classes, recipe.resolution)
    cast(Any, judge).to(memory_format=torch.channels_last)  # some stubs of torch lack it
    optimiser = torch.optim.AdamW(judge.parameters(), PEAK, weight_decay=0.02)
    labels = torch.from_numpy(train.labels)
    for step in resumable(
        "judge", recipe.judge_steps, folder, {"judge": judge, "optimiser": optimiser}
    ):
        rng = np.random.default_rng((seed, 11, step))
        torch.manual_seed(seed * 1_000_003 + step)
        chosen = rng.integers(0, len(train), BATCH)
        pixels = preprocess(
            [augment(train.images[i], recipe, rng) for i in chosen], recipe.resolution
        )
        pixels[::2] = reconstruct(vae, pixels[::2])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe.judge_steps, PEAK)
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(pixels.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits.float(), labels[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        if (step + 1) % 50 == 0:
            log(folder, phase="judge", step=step + 1, loss=loss.item())
    judge.eval()
    return judge


def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """The images as they come back from the autoencoder, float32 ``[n, 3, size, size]``."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latents = [vae.encode(chunk).latent_dist.mean for chunk in torch.split(pixels, BATCH)]
        images = [vae.decode(chunk).sample.float() for chunk in latents]
    return torch.cat(images).clamp(-1, 1)


def accuracy(judge: Judge, pixels: Tensor, labels: Tensor) -> float:
    """Share of images that the judge gives their label."""
    with torch.no_grad():
        predictions = torch.cat([judge(chunk).argmax(1) for chunk in torch.split(pixels, BATCH)])
    return (predictions == labels).float().mean().item()
