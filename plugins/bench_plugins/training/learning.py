"""Training of the denoiser: the denoising loss, the contrastive losses, and the training loop."""

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
from bench_plugins.training.denoiser import TextDenoiser, reset_norms
from bench_plugins.training.loop import Phase
from bench_plugins.training.recipes import Contrast, Recipe

LABEL_SMOOTHING = 0.05
UNIFORM_WEIGHT = 0.1  # total weight spread over all wrong prompts, so that each is drawn sometimes

Losses = dict[str, Tensor]  # terms of the loss, means over a batch, by their key in the log


def stratified(count: int) -> Tensor:
    """Return uniform numbers in [0, 1), one from each of `count` equal parts, in random order."""
    return (torch.randperm(count) + torch.rand(count)) / count


def generative_losses(
    model: TextDenoiser, latents: Tensor, labels: Tensor, captions: list[str], null_rate: float
) -> Losses:
    """Return the denoising loss over all noise levels."""
    t = (stratified(len(latents)) * len(model.alphas_cumprod)).long()
    x_t, target = model.corrupt(latents, torch.randn_like(latents), t)
    chosen = torch.where(torch.rand(len(labels)) < null_rate, len(captions), labels)
    text = model.encode([*captions, NULL_CAPTION])
    return {"loss": functional.mse_loss(model(x_t, t, text[chosen]).float(), target)}


def discriminative_losses(
    model: TextDenoiser,
    latents: Tensor,
    labels: Tensor,
    captions: list[str],
    null_rate: float,
    contrast: Contrast,
) -> Losses:
    """Return all losses: `fit` from every image, `loss` from the first ones, others from the next.

    The latents are `contrast.denoised`, `scored` and `fitted` images, in this order. The captions
    are one per class, in class order, then some that are wrong for all images. The prompts of an
    image share x_t, as they do in classification, and the UNet's first half. Wrong prompts are
    drawn with probabilities that increase with their fit.

    While the predictions are nearly the same under all prompts, the cross-entropy of errors has
    almost no gradient, because an error grows with the square of a change in the prediction. So the
    denoiser is also trained, by regression, to miss the target by a constant under a wrong prompt.
    The square of this constant is how much worse the prompt fits than the best one, in nats, over
    `contrast.scale`.

    Returns:
        `loss`: squared error under the image's own caption, or the empty one. `fit`: cross-entropy
        of the true prompt among the attention logits. `apart`: `uniformity` of the texts. If images
        are scored, also `cross_entropy`: of the true prompt against wrong ones, with logits -error;
        and `belief`: squared error from a target shifted by how badly the prompt fits.
    """
    denoised, scored = contrast.denoised, contrast.scored
    even = stratified(denoised) * len(model.alphas_cumprod)
    low = stratified(len(latents) - denoised) * contrast.low
    t = torch.cat([even, low]).long()
    x_t, target = model.corrupt(latents, torch.randn_like(latents), t)
    first = model.first_half(x_t, t)
    text = model.encode([*captions, NULL_CAPTION])
    logits = model.fit(first, text[:-1]).float()
    fit = functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)

    own = torch.where(torch.rand(denoised) < null_rate, len(captions), labels[:denoised])
    rows = slice(denoised, denoised + scored)
    true, log_belief = labels[rows, None], logits[rows].detach().log_softmax(1)
    weights = log_belief.exp() + UNIFORM_WEIGHT / len(captions)
    wrong = torch.multinomial(weights.scatter(1, true, 0.0), contrast.wrong) if scored else true
    prompts = torch.cat([true, wrong], 1)
    image = torch.arange(denoised + scored)
    image = torch.cat([image[:denoised], image[rows].repeat_interleave(prompts.shape[1])])
    text_rows = text[torch.cat([own, prompts.flatten()])]
    error = model.second_half(first.rows(image), text_rows).float() - target[image]
    losses = {"loss": error[:denoised].square().mean()}
    others = {"fit": fit, "apart": uniformity(text[:-1])}
    if not scored:
        return losses | others

    error = error[denoised:].view(*prompts.shape, *error.shape[1:])
    misfit = log_belief.amax(1, keepdim=True) - log_belief.gather(1, prompts)
    shift = (misfit / contrast.scale).sqrt()
    shift[:, 0] = 0.0
    decision = -contrast.scale * error.square().mean((2, 3, 4))
    true_column = torch.zeros(scored, dtype=torch.long)
    losses["cross_entropy"] = functional.cross_entropy(decision, true_column)
    losses["belief"] = (error - shift[:, :, None, None, None]).square().mean()
    return losses | others


def uniformity(text: Tensor) -> Tensor:
    """Return the uniformity loss of the texts: the log of the mean of exp(−2 distance²) over pairs.

    Distances are between the mean token embeddings, normalised to length 1 (Wang and Isola,
    "Understanding contrastive representation learning through alignment and uniformity", ICML
    2020). Without it, all captions of other things would collapse to the same embedding, because
    they are all wrong for all images.
    """
    points = functional.normalize(text.float().mean(1), dim=1)
    return torch.pdist(points).square().mul(-2).exp().mean().log()


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
    """Train the model in place and return the exponential moving average of its weights.

    The data are latents, for training ``[n, views, channels, size, size]`` and for validation
    without views, and class indices ``[n]``. With `contrast`, the weighted other losses are added
    to the denoising loss. Checkpoint and log of the phase `name` are in `folder`.
    """
    settings = contrast or recipe
    steps, batch, peak = settings.steps, settings.batch, settings.learning_rate
    weights = {"loss": 1.0}
    if contrast:
        weights |= {"cross_entropy": contrast.weight, "belief": contrast.belief_weight}
        weights |= {"fit": contrast.fit_weight, "apart": contrast.apart_weight}
    latents, labels = train
    model.requires_grad_(True)  # the average that an earlier phase returned has none
    reset_norms(model.unet)
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        model.parameters(), peak, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    parts = {"model": model, "average": average, "optimiser": optimiser}
    phase = Phase(name, steps, peak, folder, seed, **parts)
    for step in phase.steps():
        rng = random.Random(seed * 1_000_003 + step)
        drawn = captions.draw(rng)
        chosen = torch.randint(len(latents), (batch,))
        x_0 = latents[chosen, torch.randint(latents.shape[1], (batch,))].float()
        model.train()
        if contrast:
            drawn += captions.draw_others(rng)
        common = (model, x_0, labels[chosen], drawn, recipe.null_rate)
        with torch.autocast("cpu", torch.bfloat16):
            if contrast:
                losses = discriminative_losses(*common, contrast)
            else:
                losses = generative_losses(*common)
            loss: Any = sum(weights[name] * value for name, value in losses.items())
        phase.descend(loss, max_norm=1.0)
        model.mask_early_text()
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
    """Return denoising loss (true prompts) and accuracy on the first validation images."""
    latents, labels = (values[: recipe.validation_images] for values in validation)
    errors = judging.draw_errors(model, latents, captions.prompts, recipe.validation_draws)
    own = errors[torch.arange(len(labels)).numpy(), :, labels.numpy()]
    correct = judging.full(errors) == labels.numpy()
    return {"validation_loss": float(own.mean()), "validation_accuracy": float(correct.mean())}


def own_loss(
    model: TextDenoiser, captions: Captions, validation: tuple[Tensor, Tensor], draws: int
) -> float:
    """Return the mean denoising loss of images under their default prompts, on an even grid."""
    latents, labels = validation
    total = 0.0
    for index, prompt in enumerate(captions.prompts):
        own = latents[labels == index]
        total += float(judging.draw_errors(model, own, [prompt], draws).mean()) * len(own)
    return total / len(latents)
