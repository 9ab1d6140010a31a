"""The backbone contract: what scores. A backbone never knows of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

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
    making the model would, as far as configs and the headers of files tell.

    It may have `network`, the torch module that `denoise` calls, so that `--compile`, `--layout`
    and `--attention` can change it in place. And it may have
    `fold_prompts(conditioning [P, L, D]) -> [P, …]`, which computes once what depends on the
    prompts alone and returns what `denoise` takes in the conditioning's place; a conditioning it
    takes still.

    Attributes:
        latent_shape: (C, H, W) of a latent.
        resolution: side of the images in pixels.
        prediction_type: `epsilon`, `v_prediction`, `sample` or `flow`.
        alphas_cumprod: float [T], the schedule's cumulative alphas, in float32 or better; for
            `flow`, float [T] of 1 − sigma_t.
        device: where its tensors live.

    With `can_linearise = True`, a class attribute, it says that `denoise` is differentiable with
    respect to its conditioning wherever gradients are enabled; without it that it is not. Its
    parameters should ask for no gradient. It may have `save_memory()`, called once where a single
    cell's backward pass does not fit: recompute instead of keeping activations. And it may have
    `linearisation_cost(weights, resolution) -> float`, a static method: what one forward pass with
    that gradient costs, in evaluations. It is counted, never timed: the same on every machine.
    """

    latent_shape: tuple[int, int, int]
    resolution: int
    prediction_type: str
    alphas_cumprod: NDArray[np.floating[Any]]
    device: torch.device

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return scaled latents, float32 [n, C, H, W]: the mean of the VAE's posterior."""

    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the conditioning, [n, L, D]."""

    def denoise(
        self, x_t: torch.Tensor, t: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Return the model's prediction, [B, C, H, W].

        Args:
            x_t: float32 [B, C, H, W].
            t: int64 [B], timesteps.
            conditioning: [B, L, D].
        """


class Classifier(Protocol):
    """A model that scores images against texts directly. Made like a denoiser."""

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts]; higher is better."""
