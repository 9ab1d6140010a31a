"""The backbone contract: what scores. A backbone never knows of classes.

A backbone is made as `Target(weights, device=…, dtype=…, **parameters)`, with the parameters of its
spec, and `bench.inputs.weights.Weights`, or None where the spec names no weights.

Each kind is a base class: its abstract methods are required, and the others are abilities with a
default. A class that has these methods without the base gets the same defaults. `bench.testing`
checks what a class offers.
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

# What a linearised draw counts as, in evaluations, where a class does not say: a forward pass, and
# a backward pass of twice its operations.
LINEARISATION_COST = 3.0


class Backbone:
    """What the class of any backbone may know from configs and headers, before weights are read."""

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Raise `UserError` where making the backbone would; reads no tensor."""

    @staticmethod
    def weight_parameters(weights: Any, **parameters: Any) -> Mapping[str, Any]:
        """Return parameters that nobody set and the weights decide; they identify a run."""
        return {}

    @staticmethod
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the tokens of each text and the most there may be; None where it cannot count."""
        return None

    @staticmethod
    def evaluation_flops(weights: Any, resolution: int | None = None) -> float | None:
        """Return the floating-point operations of one evaluation; None where it cannot count."""
        return None

    @staticmethod
    def memory(weights: Any, dtype: str, **parameters: Any) -> int | None:
        """Return the bytes of the parts that are in memory together, at the most, or None."""
        return None

    @staticmethod
    def level_table(weights: Any, **parameters: Any) -> Levels | None:
        """Return what a denoiser's `levels` will be; None where that is not known yet."""
        return None

    @staticmethod
    def linearisation_cost(weights: Any, resolution: int | None = None) -> float | None:
        """Return what a denoiser's forward pass with the gradient costs, in evaluations.

        It is counted, never timed: the same on every machine. None: `LINEARISATION_COST`.
        """
        return None


class Denoiser(Backbone, ABC):
    """A text-to-image diffusion model.

    A model of pixels has them for latents. A model of class labels takes class names for texts.
    Prompts are encoded before `network` is first read, so that it may be loaded then.

    Attributes:
        latent_shape: (C, H, W) of a latent.
        resolution: side of the images in pixels.
        levels: its noise levels. Instead of them it may have `alphas_cumprod`, float [T], and
            `prediction_type`, as `bench.contracts.levels.levels_of_schedule` takes them.
        device: where its tensors live.
        network: optional; the torch module that `denoise` calls, which `--compile`, `--layout` and
            `--attention` change in place. It may be a property.
        can_linearise: whether it is differentiable with respect to its conditioning wherever
            gradients are enabled; a class attribute. Its parameters should ask for no gradient.
        prompts_at_once: how many prompts it is given at a time, a class attribute. A denoiser that
            loads its text encoders for every call wants many.
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

        Every leaf has the n prompts first and, padded, the same lengths behind them for any texts.
        """

    @abstractmethod
    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Any) -> torch.Tensor:
        """Return the model's prediction, [B, C, H, W].

        Args:
            x_t: float32 [B, C, H, W].
            t: [B], times of the level table: int64 where they are whole, else float32.
            conditioning: as `encode_prompts` makes it, with a row for each of the B cells.
        """

    def encode_null(self) -> Tree:
        """Return the conditioning of no prompt, one row, for `--guidance`."""
        raise NotImplementedError

    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of the latents, for `--latent sample`.

        Returns:
            float32 [n, C, H, W] each, scaled as latents.
        """
        raise NotImplementedError

    def mix_rest(self, rest: Any, weights: torch.Tensor) -> Tree:
        """Return one row: what the leaves `rest` of all prompts are for weights, float32 [P].

        These are masks and other leaves that are not floating, which must otherwise be the same for
        all prompts. Floating leaves of a conditioning are mixed by their weights.
        """
        raise NotImplementedError

    def fold_prompts(self, conditioning: Any) -> Tree:
        """Return what depends on the prompts alone, computed once: a tree with a row per prompt.

        `denoise` takes rows of it in the conditioning's place, and still takes a conditioning.
        """
        return conditioning  # type: ignore[no-any-return]

    def save_memory(self) -> bool | None:
        """Recompute activations in a backward pass from now on, instead of keeping them.

        Called once, where a single cell's backward pass does not fit.

        Returns:
            False where it cannot.
        """
        return False


class Likelihood(Backbone, ABC):
    """A model that gives errors or negative log-likelihoods by itself.

    Attributes:
        reduction: how the errors of a text's draws make its score, a class attribute: `mean`,
            `mean-softmax` or `logsumexp`; see `bench.contracts.decision`. Strategies that give
            texts up compare means, so only a model of the mean can use them.
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
            draws: int64 [B], a number for each draw, the same for every image and text, and other
                numbers under another seed of the run. All that is random comes from it alone.
        """

    def prior(self, texts: Sequence[str], draws: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the error of each text without an image, float32 [B], on the scale of `evaluate`.

        For `--control text-only`.
        """
        raise NotImplementedError


class Classifier(Backbone, ABC):
    """A model that scores images against texts directly."""

    @abstractmethod
    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts]; higher is better."""

    def score_sets(
        self, images: Sequence[Image.Image], sets: Sequence[Sequence[str]]
    ) -> NDArray[np.float32]:
        """Return logits, float32 [images, sets]; a set has one or more texts.

        How several texts of a class make one. Without it, `--template-rule mean` takes the mean of
        the texts' logits.
        """
        raise NotImplementedError

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Learn from labelled images of another split; of a classifier whose spec says `learns`.

        Called once, before `score`. Such a classifier reads no prompts: a class's text is its name.

        Args:
            images: [n], of any size and mode, each decoded when it is asked for.
            labels: [n], the text of each one's class, as `score` gets it. Every class has an image.

        Returns:
            What is worth knowing about the result, such as the regularisation that was chosen, as
            JSON holds it. It is recorded in the run's summary.
        """
        raise NotImplementedError
