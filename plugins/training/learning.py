"""How the denoiser learns: the denoising loss, the contrast of prompts, and the loop."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench_plugins.training import judging
from bench_plugins.training.data import NULL_CAPTION, Captions
from bench_plugins.training.denoiser import TextDenoiser, shorten
from bench_plugins.training.loop import Phase
from bench_plugins.training.recipes import Contrast, Recipe

LABEL_SMOOTHING = 0.05
LEAST_BELIEF = 0.1  # of all wrong prompts together, so that each is drawn now and then

Losses = dict[str, Tensor]


def stratified(count: int) -> Tensor:
    """Return uniform numbers in [0, 1), one from each of `count` equal parts, in random order."""
    return (torch.randperm(count) + torch.rand(count)) / count


def generative_losses(
    model: TextDenoiser, latents: Tensor, labels: Tensor, wording: list[str], null_rate: float
) -> Losses:
    """Return the denoising loss alone, over all noise levels."""
    t = (stratified(len(latents)) * len(model.alphas_cumprod)).long()
    x_t, target = model.corrupt(latents, torch.randn_like(latents), t)
    captions = torch.where(torch.rand(len(labels)) < null_rate, len(wording), labels)
    text = model.encode([*wording, NULL_CAPTION])
    return {"loss": functional.mse_loss(model(x_t, t, text[captions]).float(), target)}


def discriminative_losses(
    model: TextDenoiser,
    latents: Tensor,
    labels: Tensor,
    wording: list[str],
    null_rate: float,
    contrast: Contrast,
) -> Losses:
    """Return all losses: the fit of every image, denoising of the first ones, contrast of the next.

    The prompts of an image share x_t, as they do when it is classified, and what the UNet computes
    before they enter. Wrong prompts are drawn as often as they fit. The first of `wording` are
    the classes', in order; what follows is wrong for all images.

    Near equal predictions under all prompts, the cross-entropy of errors has next to no slope: an
    error grows with the square of what a prompt changes. So under a wrong prompt the denoiser is
    also taught, by plain regression, to miss by a constant, whose square is how much worse that
    prompt fits than the best, in nats over `contrast.scale`.

    Returns:
        Means over the images. `loss`: the squared error under the image's own caption, sometimes
        the empty one. `fit`: the cross-entropy of the middle's attention to the true prompt.
        `apart`: how near each other the texts lie; see `nearness`. If images are scored, too,
        `cross_entropy`: of the true prompt against wrong ones, by their errors; and `belief`: the
        squared error under each prompt from a target off by how little it fits.
    """
    denoised, scored = contrast.denoised, contrast.scored
    even = stratified(denoised) * len(model.alphas_cumprod)
    low = stratified(len(latents) - denoised) * contrast.low
    t = torch.cat([even, low]).long()
    x_t, target = model.corrupt(latents, torch.randn_like(latents), t)
    seen = model.see(x_t, t)
    text = model.encode([*wording, NULL_CAPTION])
    logits = model.fit(seen, text[:-1]).float()
    fit = functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)

    own = torch.where(torch.rand(denoised) < null_rate, len(wording), labels[:denoised])
    rows = slice(denoised, denoised + scored)
    true, log_belief = labels[rows, None], logits[rows].detach().log_softmax(1)
    chances = log_belief.exp() + LEAST_BELIEF / len(wording)
    wrong = torch.multinomial(chances.scatter(1, true, 0.0), contrast.wrong) if scored else true
    prompts = torch.cat([true, wrong], 1)
    image = torch.arange(denoised + scored)
    image = torch.cat([image[:denoised], image[rows].repeat_interleave(prompts.shape[1])])
    output = model.tell(seen.rows(image), text[torch.cat([own, prompts.flatten()])]).float()
    error = output - target[image]
    losses = {"loss": error[:denoised].square().mean()}
    further = {"fit": fit, "apart": nearness(text[:-1])}
    if not scored:
        return losses | further

    error = error[denoised:].view(*prompts.shape, *error.shape[1:])
    against = log_belief.amax(1, keepdim=True) - log_belief.gather(1, prompts)
    miss = (against / contrast.scale).sqrt()
    miss[:, 0] = 0.0
    decision = -contrast.scale * error.square().mean((2, 3, 4))
    first = torch.zeros(scored, dtype=torch.long)
    losses["cross_entropy"] = functional.cross_entropy(decision, first)
    losses["belief"] = (error - miss[:, :, None, None, None]).square().mean()
    return losses | further


def nearness(text: Tensor) -> Tensor:
    """Return the log of the mean exp(−2 distance²) of two texts on the sphere: how near they lie.

    Wang and Isola, "Understanding contrastive representation learning through alignment and
    uniformity", ICML 2020. Texts of other things are all wrong for all images, and would become one
    and the same text.
    """
    place = functional.normalize(text.float().mean(1), dim=1)
    return torch.pdist(place).square().mul(-2).exp().mean().log()


def train_denoiser(
    recipe: Recipe,
    model: TextDenoiser,
    captions: Captions,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    folder: Path,
    seed: int,
    name: str = "denoiser",
    contrast: Contrast | None = None,
) -> TextDenoiser:
    """Train on latents ``[n, views, …]`` and return the moving average of the weights.

    With `contrast`, a discriminative phase: the denoising loss plus, weighted, the other losses.
    """
    settings = contrast or recipe
    steps, batch, peak = settings.steps, settings.batch, settings.learning_rate
    weights = {"loss": 1.0}
    if contrast:
        weights |= {"cross_entropy": contrast.weight, "belief": contrast.belief_weight}
        weights |= {"fit": contrast.fit_weight, "apart": contrast.apart_weight}
    latents, labels = train
    model.requires_grad_(True)  # the average of an earlier phase comes without
    shorten(model.unet)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        model.parameters(), peak, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    parts = {"model": model, "average": average, "optimiser": optimiser}
    phase = Phase(name, steps, peak, folder, seed, **parts)
    for step in phase.steps():
        rng = random.Random(seed * 1_000_003 + step)
        wording = captions.draw(rng)
        chosen = torch.randint(len(latents), (batch,))
        x_0 = latents[chosen, torch.randint(latents.shape[1], (batch,))].float()
        model.train()
        if contrast:
            wording += captions.distract(rng)
        common = (model, x_0, labels[chosen], wording, recipe.null_rate)
        with torch.autocast("cpu", torch.bfloat16):
            if contrast:
                losses = discriminative_losses(*common, contrast)
            else:
                losses = generative_losses(*common)
            loss: Any = sum(weights[name] * value for name, value in losses.items())
        phase.descend(loss, 1.0)
        model.deafen()
        decay = recipe.ema_decay if contrast else min(recipe.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for shadow, weight in zip(average.parameters(), model.parameters(), strict=True):
                shadow.lerp_(weight, 1 - decay)
        phase.log_losses(**losses)
        if (step + 1) % recipe.validate_every == 0 or step + 1 == steps:
            phase.log(**validate(recipe, average, captions, validation))
    return average.eval()


def validate(
    recipe: Recipe, model: TextDenoiser, captions: Captions, validation: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Return denoising loss under the true prompts and accuracy, on the first validation images."""
    latents, labels = (values[: recipe.validation_images] for values in validation)
    errors = judging.draw_errors(model, latents, captions.prompts, recipe.validation_draws)
    own = errors[torch.arange(len(labels)).numpy(), :, labels.numpy()]
    correct = judging.full(errors) == labels.numpy()
    return {"validation_loss": float(own.mean()), "validation_accuracy": float(correct.mean())}


def own_loss(
    model: TextDenoiser, captions: Captions, validation: tuple[Tensor, Tensor], draws: int
) -> float:
    """Return the denoising loss under the images' default prompts, over an even grid of draws."""
    latents, labels = validation
    total = 0.0
    for index, prompt in enumerate(captions.prompts):
        own = latents[labels == index]
        total += float(judging.draw_errors(model, own, [prompt], draws).mean()) * len(own)
    return total / len(latents)
