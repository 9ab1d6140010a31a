"""How the denoiser learns: the denoising loss, the contrast of prompts, and the loop."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench_plugins.training import classify
from bench_plugins.training.captions import NULL_CAPTION
from bench_plugins.training.loop import Stateful, learning_rate, log, resumable

if TYPE_CHECKING:
    from bench_plugins.training.captions import Captions
    from bench_plugins.training.denoiser import Denoiser
    from bench_plugins.training.recipes import Contrast, Recipe


class Rivals(nn.Module):
    """Which wrong prompts are hard: a running mean of the belief each class gives each other."""

    belief: Tensor

    def __init__(self, classes: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("belief", torch.full((classes, classes), 1 / classes))

    def draw(self, labels: Tensor, count: int) -> Tensor:
        """`count` wrong classes for each label, hard ones more often; int64 ``[n, count]``."""
        weights = self.belief[labels] + 0.02
        return torch.multinomial(weights.scatter(1, labels[:, None], 0.0), count)

    def update(self, labels: Tensor, rivals: Tensor, shares: Tensor) -> None:
        """Move the belief of the drawn pairs towards the shares they were given."""
        for label, others, values in zip(labels, rivals, shares, strict=True):
            self.belief[label, others] = (
                self.decay * self.belief[label, others] + (1 - self.decay) * values
            )


def noise_batch(
    model: Denoiser, latents: Tensor, timesteps: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Noised latents, targets and timesteps, the latter stratified over the half-open range."""
    count, (first, end) = len(latents), timesteps
    t = (first + (torch.randperm(count) + torch.rand(count)) * (end - first) / count).long()
    x_t, target = model.corrupt(latents, torch.randn_like(latents), t)
    return x_t, target, t


def denoising_loss(
    model: Denoiser, latents: Tensor, labels: Tensor, wording: list[str], null_rate: float
) -> Tensor:
    """Mean squared error under the image's own caption, sometimes under the empty one."""
    x_t, target, t = noise_batch(model, latents, (0, len(model.alphas_cumprod)))
    captions = torch.where(torch.rand(len(labels)) < null_rate, len(wording), labels)
    text = model.encode([*wording, NULL_CAPTION])
    return functional.mse_loss(model(x_t, t, text[captions]).float(), target)


def contrast_loss(
    model: Denoiser,
    latents: Tensor,
    labels: Tensor,
    wording: list[str],
    rivals: Rivals,
    contrast: Contrast,
) -> Tensor:
    """Cross-entropy of the true prompt against wrong ones, by their errors.

    All prompts of an image share x_t, as they do when it is classified.
    """
    x_t, target, t = noise_batch(model, latents, contrast.timesteps)
    wrong = rivals.draw(labels, contrast.prompts - 1)
    prompts = torch.cat([labels[:, None], wrong], 1)
    count = prompts.shape[1]
    text = model.encode(wording)[prompts.flatten()]
    output = model(x_t.repeat_interleave(count, 0), t.repeat_interleave(count), text).float()
    errors = (output - target.repeat_interleave(count, 0)).square().mean((1, 2, 3)).view(-1, count)
    logits = -contrast.scale * errors
    rivals.update(labels, wrong, logits.detach().softmax(1)[:, 1:])
    return functional.cross_entropy(logits, torch.zeros(len(labels), dtype=torch.long))


def train_denoiser(
    recipe: Recipe,
    model: Denoiser,
    captions: Captions,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    folder: Path,
    seed: int,
    phase: str = "denoiser",
    contrast: Contrast | None = None,
) -> Denoiser:
    """Train on latents ``[n, views, …]`` and return the moving average of the weights.

    With `contrast`, a discriminative phase: the denoising loss plus `contrast.weight` times the
    cross-entropy.
    """
    settings = contrast or recipe
    steps, batch, peak = settings.steps, settings.batch, settings.learning_rate
    latents, labels = train
    model.requires_grad_(True)  # the average of an earlier phase comes without
    average = copy.deepcopy(model).requires_grad_(False)
    rivals = Rivals(len(captions.names))
    optimiser = torch.optim.AdamW(
        model.parameters(), peak, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    parts: dict[str, Stateful] = {
        "model": model,
        "average": average,
        "rivals": rivals,
        "optimiser": optimiser,
    }
    for step in resumable(phase, steps, folder, parts):
        torch.manual_seed(seed * 1_000_003 + step)
        wording = captions.draw(random.Random(seed * 1_000_003 + step))
        chosen = torch.randint(len(latents), (batch,))
        x_0, truth = (
            latents[chosen, torch.randint(latents.shape[1], (batch,))].float(),
            labels[chosen],
        )
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        model.train()
        cross_entropy = torch.zeros(())
        with torch.autocast("cpu", torch.bfloat16):
            half = batch // 2 if contrast else batch  # most of the work is the cross-entropy's
            denoising = denoising_loss(model, x_0[:half], truth[:half], wording, recipe.null_rate)
            if contrast:
                cross_entropy = contrast_loss(model, x_0, truth, wording, rivals, contrast)
        optimiser.zero_grad()
        weight = contrast.weight if contrast else 0.0
        torch.autograd.backward(denoising + weight * cross_entropy)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = recipe.ema_decay if contrast else min(recipe.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for shadow, weight in zip(average.parameters(), model.parameters(), strict=True):
                shadow.lerp_(weight, 1 - decay)
        if (step + 1) % 50 == 0:
            log(
                folder,
                phase=phase,
                step=step + 1,
                loss=denoising.item(),
                cross_entropy=cross_entropy.item(),
            )
        if (step + 1) % recipe.validate_every == 0 or step + 1 == steps:
            log(
                folder,
                phase=phase,
                step=step + 1,
                **validate(recipe, average, captions, validation),
            )
    return average.eval()


def validate(
    recipe: Recipe, model: Denoiser, captions: Captions, validation: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Denoising loss under the true prompts and accuracy, on the first validation images."""
    latents, labels = (values[: recipe.validation_images] for values in validation)
    errors = classify.draw_errors(model, latents, captions.prompts, recipe.validation_draws)
    own = errors[torch.arange(len(labels)).numpy(), :, labels.numpy()]
    correct = classify.full(errors) == labels.numpy()
    return {"validation_loss": float(own.mean()), "validation_accuracy": float(correct.mean())}


def own_loss(
    model: Denoiser, captions: Captions, validation: tuple[Tensor, Tensor], draws: int = 25
) -> float:
    """Denoising loss of images under their own default prompts, over an even grid of draws."""
    latents, labels = validation
    total = 0.0
    for index, prompt in enumerate(captions.prompts):
        own = latents[labels == index]
        total += float(classify.draw_errors(model, own, [prompt], draws).mean()) * len(own)
    return total / len(latents)
