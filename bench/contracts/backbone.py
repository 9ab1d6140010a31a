"""The backbone contract: what scores. A backbone never knows of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from bench.contracts.levels import Levels

    Tree = torch.Tensor | Mapping[str, Any]  # a tensor, or nested mappings of tensors

# What a linearised draw counts as, in evaluations, where a class does not say: a forward pass, and
# a backward pass of twice its operations.
LINEARISATION_COST = 3.0


class Denoiser(Protocol):
    """A text-to-image diffusion model.

    Made as `Target(weights, device=…, dtype=…, **parameters)`, with the parameters of its spec, and
    `bench.inputs.weights.Weights`, or None where the spec names no weights.
    A class may also have `token_counts(weights, texts) -> (counts, limit)`, a static method that
    reads only the tokenizer, so that prompts that are cut are found before weights are read; and
    `check_weights(weights, *, dtype, **parameters)`, a static method that raises `UserError` where
    making the model would, as far as configs and the headers of files tell; and
    `level_table(weights, **parameters)`, a static method that returns its levels from the configs.

    A model of pixels has them for latents. A model of class labels takes class names for texts.

    It may have `network`, the torch module that `denoise` calls, so that `--compile`, `--layout`
    and `--attention` can change it in place. And it may have
    `fold_prompts(conditioning) -> tree`, which computes once what depends on the prompts alone and
    returns, with a row for each prompt, what `denoise` takes in the conditioning's place; a
    conditioning it takes still. It may have `encode_null() -> tree`, one row: the conditioning of
    no prompt, for `--guidance`; and `posterior(images) -> (mean, deviation)`, the latents'
    distribution, for `--latent sample`.

    Attributes:
        latent_shape: (C, H, W) of a latent.
        resolution: side of the images in pixels.
        levels: its noise levels. Instead of them it may have `alphas_cumprod`, float [T], and
            `prediction_type`, as `bench.contracts.levels.levels_of_schedule` takes them.
        device: where its tensors live.

    It may have `prompts_at_once`, a class attribute: how many prompts `encode_prompts` is given at
    a time, where text encoders are loaded and freed in each call. Prompts are encoded before
    `network` is first read, so that it may be loaded then.

    With `can_linearise = True`, a class attribute, it says that `denoise` is differentiable with
    respect to its conditioning wherever gradients are enabled; without it that it is not. Its
    parameters should ask for no gradient. It may have `save_memory()`, called once where a single
    cell's backward pass does not fit: recompute instead of keeping activations. And it may have
    `linearisation_cost(weights, resolution) -> float`, a static method: what one forward pass with
    that gradient costs, in evaluations. It is counted, never timed: the same on every machine.
    Floating leaves of its conditioning are mixed then. Where prompts differ in another leaf, such
    as a mask, `mix_rest(rest, weights) -> tree` returns a mixture's: `rest` are those leaves of all
    prompts, `weights` float32 [P], the result one row.
    """

    latent_shape: tuple[int, int, int]
    resolution: int
    levels: Levels
    device: torch.device

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return scaled latents, float32 [n, C, H, W]: the mean of the VAE's posterior."""

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning: a tensor, or nested mappings of tensors by name.

        Every leaf has the n prompts first and, padded, the same lengths behind them for any texts.
        """

    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Any) -> torch.Tensor:
        """Return the model's prediction, [B, C, H, W].

        Args:
            x_t: float32 [B, C, H, W].
            t: [B], times of the level table: int64 where they are whole, else float32.
            conditioning: as `encode_prompts` makes it, with a row for each of the B cells.
        """


class Classifier(Protocol):
    """A model that scores images against texts directly. Made like a denoiser."""

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts]; higher is better."""


class FittedClassifier(Classifier, Protocol):
    """A classifier that learns from labelled images of another split; its spec says `learns=True`.

    It reads no prompts: a class's text is its name. `fit` is called once, before `score`.
    """

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Learn from images, of which each is decoded when it is asked for.

        Args:
            images: [n], of any size and mode.
            labels: [n], the text of each one's class, as `score` gets it. Every class has an image.

        Returns:
            What is worth knowing about the result, such as the regularisation that was chosen, as
            JSON holds it. It is recorded in the run's summary.
        """
