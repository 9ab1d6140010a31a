"""The backbone contract: models that score images against texts. They know nothing of classes.

A backbone is made as `Target(weights, device=…, dtype=…, **parameters)`, with the parameters of its
spec, and `bench.inputs.weights.Weights`, or None where the spec names no weights.

Each kind is a base class: its abstract methods are required, and the others are abilities with a
default. A class that has these methods without the base gets the same defaults. `bench.testing`
checks both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from bench.contracts.levels import Levels

    Tree = torch.Tensor | Mapping[str, Any]  # a tensor, or nested mappings of tensors

# Default cost of a linearised draw, in evaluations: a forward pass, and a backward pass of twice
# its operations.
LINEARISATION_COST = 3.0


class Backbone:
    """Facts that the class of any backbone may read from configs and headers, without weights."""

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Raise `UserError` where making the backbone would; reads no tensor."""

    @staticmethod
    def weight_parameters(weights: Any, **parameters: Any) -> Mapping[str, Any]:
        """Return parameters that the weights decide unless the user does; they identify a run."""
        return {}

    @staticmethod
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the number of tokens of each text, and the largest allowed; None if unknown."""
        return None

    @staticmethod
    def evaluation_flops(weights: Any, resolution: int | None = None) -> float | None:
        """Return the floating-point operations of one evaluation; None if unknown."""
        return None

    @staticmethod
    def memory(weights: Any, dtype: str, **parameters: Any) -> int | None:
        """Return the largest number of bytes in memory at once; None if unknown."""
        return None

    @staticmethod
    def working_memory(weights: Any, dtype: str, **parameters: Any) -> int | None:
        """Return the bytes beside the weights for one cell and one image; None if unknown."""
        return None

    @staticmethod
    def level_table(weights: Any, **parameters: Any) -> Levels | None:
        """Return a denoiser's future `levels`; None if unknown."""
        return None

    @staticmethod
    def linearisation_cost(weights: Any, resolution: int | None = None) -> float | None:
        """Return the cost of a forward pass with its gradient, in evaluations, counted, not timed.

        None: `LINEARISATION_COST`.
        """
        return None


class Denoiser(Backbone, ABC):
    """A text-to-image diffusion model.

    The latents of a pixel-space model are pixels. A model of class labels takes class names as
    texts. Prompts are encoded before `network` is first read, so that it may be loaded then.

    Attributes:
        latent_shape: (C, H, W) of a latent.
        resolution: side of the images in pixels.
        levels: the noise levels. Instead of them it may have `alphas_cumprod`, float [T], and
            `prediction_type`, as `bench.contracts.levels.levels_of_schedule` takes them.
        device: the device of its tensors.
        network: optional; the torch module that `denoise` calls, which `--compile`, `--layout` and
            `--attention` change in place. It may be a property.
        can_linearise: whether it is differentiable with respect to its conditioning wherever
            gradients are enabled; a class attribute. Its parameters should require no gradient.
        prompts_at_once: number of prompts per call of `encode_prompts`, a class attribute; large
            for a denoiser that loads its text encoders in every call.
    """

    latent_shape: tuple[int, int, int]
    resolution: int
    levels: Levels
    device: torch.device
    can_linearise: bool = False
    prompts_at_once: int = 64

    @abstractmethod
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return scaled latents, float32 [n, C, H, W]: the mean of the VAE's posterior."""

    @abstractmethod
    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning: a tensor, or nested mappings of tensors by name.

        The first axis of every leaf is the n prompts; the others are padded to the same lengths for
        any texts.
        """

    @abstractmethod
    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Any) -> torch.Tensor:
        """Return the model's prediction, [B, C, H, W].

        Args:
            x_t: float32 [B, C, H, W].
            t: [B], times of the level table: int64 where they are whole, else float32.
            conditioning: as `encode_prompts` returns it, with one row per cell.
        """

    def encode_null(self) -> Tree:
        """Return the conditioning of no prompt, one row, for `--guidance`."""
        raise NotImplementedError

    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the scaled latents, float32 [n, C, H, W] each.

        For `--latent sample`.
        """
        raise NotImplementedError

    def mix_rest(self, rest: Any, weights: torch.Tensor) -> Tree:
        """Return a mixture's leaves that are not floating, such as masks, as one row.

        `rest` are these leaves of all prompts, and `weights`, float32 [P], the mixture. Without
        this method they must be the same for all prompts. Floating leaves are averaged.
        """
        raise NotImplementedError

    def fold_prompts(self, conditioning: Any) -> Tree:
        """Return all that depends on the prompts alone, computed once: a tree, one row per prompt.

        `denoise` takes rows of it in the conditioning's place, and still takes a conditioning.
        """
        return conditioning  # type: ignore[no-any-return]

    def save_memory(self) -> bool | None:
        """Recompute activations in backward passes from now on; return False if not possible.

        Called once, where a single cell's backward pass does not fit in memory.
        """
        return False


class Likelihood(Backbone, ABC):
    """A model that computes errors or negative log-likelihoods itself.

    Attributes:
        reduction: how the errors of a text's draws make its score, a class attribute: `mean`,
            `mean-softmax` or `logsumexp`; see `bench.contracts.decision`. Strategies that drop
            texts compare means, so only models with `mean` can use them.
    """

    reduction: str

    @abstractmethod
    def evaluate(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return each cell's error, float32 [B]; lower is better.

        Args:
            images: [B], of any size and mode. The cells of one image share one object.
            texts: [B].
            draws: int64 [B], the number of each cell's draw: the same for every image and text,
                and different under another seed of the run. It alone decides what is random.
        """

    def prior(self, texts: Sequence[str], draws: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return errors of texts without an image, float32 [B], for `--control text-only`."""
        raise NotImplementedError


class Classifier(Backbone, ABC):
    """A model that scores images against texts directly."""

    @abstractmethod
    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts]; higher is better."""

    def score_sets(
        self, images: Sequence[Image.Image], sets: Sequence[Sequence[str]]
    ) -> NDArray[np.float32]:
        """Return logits, float32 [images, sets], of sets of one or more texts.

        Without this method, `--template-rule mean` takes the mean of the texts' logits.
        """
        raise NotImplementedError

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Learn from labelled images of another split, if the spec says `learns`.

        Called once, before `score`. Such a classifier reads no prompts: a class's text is its name.

        Args:
            images: [n], of any size and mode, decoded one by one.
            labels: [n], the text of each image's class, as `score` gets it. No class is empty.

        Returns:
            Facts about the fit for the run's summary, such as the regularisation chosen, as JSON.
        """
        raise NotImplementedError
