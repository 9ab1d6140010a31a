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
    `bench.inputs.weights.Weights`, or None where the spec names no weights. A model of pixels has
    them for latents. A model of class labels takes class names for texts.

    What it may offer besides is a protocol each in `bench.contracts.abilities`: checks and levels
    from the configs alone, counting tokens, gradients, `--guidance`, `--latent sample`, `--compile`
    and others. `bench.testing` checks what a class offers.

    Prompts are encoded before `network` is first read, so that it may be loaded then.

    Attributes:
        latent_shape: (C, H, W) of a latent.
        resolution: side of the images in pixels.
        levels: its noise levels. Instead of them it may have `alphas_cumprod`, float [T], and
            `prediction_type`, as `bench.contracts.levels.levels_of_schedule` takes them.
        device: where its tensors live.
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


class Likelihood(Protocol):
    """A model that gives errors or negative log-likelihoods by itself. Made like a denoiser.

    Attributes:
        reduction: how the errors of a text's draws make its score, a class attribute: `mean`,
            `mean-softmax` or `logsumexp`; see `bench.contracts.reductions`. Strategies that give
            texts up compare means, so only a model of the mean can use them.

    Its abilities are in `bench.contracts.abilities`: `prior`, for `--control text-only`.
    """

    reduction: str

    def evaluate(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return each cell's error, float32 [B]; lower is better.

        Args:
            images: [B], of any size and mode. The cells of one image share one object.
            texts: [B].
            draws: int64 [B], a number for each draw, the same for every image and text, and other
                numbers under another seed of the run. All that is random comes from it alone.
        """


class Classifier(Protocol):
    """A model that scores images against texts directly. Made like a denoiser."""

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts]; higher is better."""


class Ensemble(Classifier, Protocol):
    """A classifier that knows how several texts of a class make one; used by `mean` of the prompts.

    Without it, `--template-rule mean` takes the mean of the texts' logits.
    """

    def score_sets(
        self, images: Sequence[Image.Image], sets: Sequence[Sequence[str]]
    ) -> NDArray[np.float32]:
        """Return logits, float32 [images, sets]; a set has one or more texts."""


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
