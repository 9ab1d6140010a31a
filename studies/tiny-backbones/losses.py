"""The losses of autoencoder and denoiser: terms, means over a batch, by their key in `WEIGHTS`."""

from __future__ import annotations

import torch
from data import Settings
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from networks import TextDenoiser
from torch import Tensor, nn

NULL_RATE = 0.1  # share of captions that are replaced by the empty one
LABEL_SMOOTHING = 0.05
UNIFORM_WEIGHT = 0.1  # total weight spread over all wrong prompts, so that each is drawn sometimes
WRONG = 3  # wrong prompts per scored image
LOW = 250  # upper limit (exclusive) of the timesteps of scored and fitted images
SCALE = 100.0  # logits are -SCALE times the error
WEIGHTS = {"loss": 1.0, "kl": 1e-4, "cross_entropy": 0.05, "belief": 1.0, "fit": 0.5, "apart": 0.1}

Losses = dict[str, Tensor]


def reconstruction(
    output: Tensor, pixels: Tensor, posterior: DiagonalGaussianDistribution, recipe: Settings
) -> Losses:
    """Return the mean absolute error of lightness and colour, plus that of their gradients.

    Gradients between neighbouring pixels keep texture. Colour, which would otherwise be learned
    late, has a weight above its share of the pixels' variance.
    """
    luma, red_blue, green = (1 / 3) ** 0.5, 0.5**0.5, (1 / 6) ** 0.5
    axes = torch.tensor([[luma] * 3, [red_blue, 0.0, -red_blue], [green, -2 * green, green]])
    axes[1:] *= recipe.colour_weight
    difference = torch.einsum("ij,bjhw->bihw", axes, output.float() - pixels)
    edges = difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()
    loss = difference.abs().mean() + recipe.edge_weight * edges
    return {"loss": loss, "kl": posterior.kl().mean() / posterior.mean[0].numel()}


def stratified(count: int) -> Tensor:
    """Return uniform numbers in [0, 1), one from each of `count` equal parts, in random order."""
    return (torch.randperm(count) + torch.rand(count)) / count


def generative(model: TextDenoiser, latents: Tensor, labels: Tensor, captions: list[str]) -> Losses:
    """Return the denoising loss over all noise levels."""
    t = (stratified(len(latents)) * len(model.scheduler)).long()
    x_t, target = model.corrupt(latents, torch.randn_like(latents), t)
    chosen = torch.where(torch.rand(len(labels)) < NULL_RATE, len(captions), labels)
    text = model.encode([*captions, ""])
    return {"loss": nn.functional.mse_loss(model.unet(x_t, t, text[chosen]).sample.float(), target)}


def discriminative(
    model: TextDenoiser, latents: Tensor, labels: Tensor, captions: list[str], contrast: Settings
) -> Losses:
    """Return all losses; `fit` and `apart` are from all images and texts.

    The latents are `contrast.denoised` images for `loss`, `scored` ones for `cross_entropy` and
    `belief`, and others, in this order. The captions are one per class, in class order, then some
    that are wrong for all images. `belief` has a gradient also where predictions are nearly the
    same under all prompts: it shifts the target by a constant whose square is how much worse the
    prompt fits than the best one, in nats, over `SCALE`.
    """
    denoised, scored = contrast.denoised, contrast.scored
    even = stratified(denoised) * len(model.scheduler)
    t = torch.cat([even, stratified(len(latents) - denoised) * LOW]).long()
    x_t, target = model.corrupt(latents, torch.randn_like(latents), t)
    first = model.first_half(x_t, t)
    text = model.encode([*captions, ""])
    logits = model.fit(first, text[:-1]).float()
    fit = nn.functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)

    own = torch.where(torch.rand(denoised) < NULL_RATE, len(captions), labels[:denoised])
    rows = slice(denoised, denoised + scored)
    true, log_belief = labels[rows, None], logits[rows].detach().log_softmax(1)
    weights = log_belief.exp() + UNIFORM_WEIGHT / len(captions)
    wrong = torch.multinomial(weights.scatter(1, true, 0.0), WRONG) if scored else true
    prompts = torch.cat([true, wrong], 1)
    image = torch.arange(denoised + scored)
    image = torch.cat([image[:denoised], image[rows].repeat_interleave(prompts.shape[1])])
    text_rows = text[torch.cat([own, prompts.flatten()])]
    shared = tuple(values[image] for values in first)
    error = model.second_half(shared, text_rows).float() - target[image]
    losses = {"loss": error[:denoised].square().mean(), "fit": fit, "apart": uniformity(text[:-1])}
    if not scored:
        return losses

    error = error[denoised:].view(*prompts.shape, *error.shape[1:])
    misfit = log_belief.amax(1, keepdim=True) - log_belief.gather(1, prompts)
    shift = (misfit / SCALE).sqrt()
    shift[:, 0] = 0.0
    decision = -SCALE * error.square().mean((2, 3, 4))
    losses["cross_entropy"] = nn.functional.cross_entropy(decision, torch.zeros_like(labels[rows]))
    losses["belief"] = (error - shift[:, :, None, None, None]).square().mean()
    return losses


def uniformity(text: Tensor) -> Tensor:
    """Return the log of the mean of exp(−2 distance²) over pairs of texts.

    Distances are between mean token embeddings of length 1 (Wang and Isola, "Understanding
    contrastive representation learning through alignment and uniformity", ICML 2020). Without it,
    all captions of other things would collapse to the same embedding.
    """
    points = nn.functional.normalize(text.float().mean(1), dim=1)
    return torch.pdist(points).square().mul(-2).exp().mean().log()
