"""The backbone contract: base classes of models that score images against texts.

A backbone sees texts and never classes. It is constructed as `Target(weights, device=…, dtype=…,
**parameters)`, with the parameters of its spec. `weights` is a `bench.inputs.weights.Weights`, or
None if the spec names no weights.

Each kind of backbone has a base class. Its abstract methods are required; the others are optional
abilities with a default. Subclassing is not necessary: a class with the same methods gets the same
defaults. `bench.testing` has tests for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.contracts.typed import Positive

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from bench.contracts.levels import Levels

    Tree = torch.Tensor | Mapping[str, Any]  # a tensor, or nested mappings of tensors

# Default cost of a linearised draw, in evaluations: a forward pass, and a backward pass with twice
# the operations.
LINEARISATION_COST = 3.0


class Backbone:
    """Facts that any backbone class can report before its weights are loaded.

    The methods may read configuration files and the headers of weight files, but no tensors. What
    they return is checked by its annotation here.
    """

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Check that the backbone can be made from these weights, or raise UserError."""

    @staticmethod
    def weight_parameters(weights: Any, **parameters: Any) -> Mapping[str, Any]:
        """Return parameters implied by the weights, unless set by the user; they identify a run."""
        return {}

    @staticmethod
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the number of tokens of each text and the maximum allowed, or None if unknown."""
        return None

    @staticmethod
    def evaluation_flops(weights: Any, resolution: int | None = None) -> Positive | None:
        """Return the floating-point operations of one evaluation, or None if unknown.

        Of a classifier, those of one image. Encoders of images and prompts are not counted.
        """
        return None

    @staticmethod
    def memory(weights: Any, dtype: str, **parameters: Any) -> Positive | None:
        """Return the peak memory of the weights in bytes, or None if unknown."""
        return None

    @staticmethod
    def half_precision(weights: Any) -> Literal["bfloat16", "float16"] | None:
        """Return the half precision in which a denoiser runs on a GPU by default; None: TF32."""
        return None

    @staticmethod
    def keeps_float32(weights: Any) -> bool:
        """Return whether some of a network's tensors stay float32 when it is in half precision."""
        return False

    @staticmethod
    def offloaded_memory(weights: Any, dtype: str, **parameters: Any) -> Positive | None:
        """Return the peak memory of the weights with `--offload model`, in bytes, or None."""
        return None

    @staticmethod
    def level_table(weights: Any, **parameters: Any) -> Levels | None:
        """Return the `levels` that the denoiser will have, or None if unknown."""
        return None

    @staticmethod
    def encoder_key(weights: Any, **parameters: Any) -> str:
        """Return a text that differs if weights or parameters encode prompts differently.

        `parameters` are those that are not at their default. By default it covers the weights and
        all of them. Encoded prompts are cached under it, together with the dtype, the version of
        the spec and the plugin's code, so that runs with equal keys share them.
        """
        return f"{getattr(weights, 'fingerprint', '')} {sorted(parameters.items())}"

    @staticmethod
    def linearisation_cost(weights: Any, resolution: int | None = None) -> Positive | None:
        """Return the cost of a forward pass with its gradient, in evaluations.

        It is counted in operations, not timed. None if unknown; then it is `LINEARISATION_COST`.
        """
        return None


class Denoiser(Backbone, ABC):
    """A text-to-image diffusion model.

    The latents of a pixel-space model are its pixels. A model that is conditioned on class labels
    takes class names as texts. Prompts are encoded before `network` is first read, so the network
    may be loaded at that point.

    Attributes:
        latent_shape: (C, H, W) of a latent.
        resolution: side of the images in pixels.
        levels: the noise levels; `bench.contracts.levels` makes those of a schedule.
        device: the device of its tensors.
        network: optional; the torch module that `denoise` calls. `--compile`, `--layout` and
            `--attention` change it in place. It may be a property.
        can_linearise: class attribute; whether the prediction is differentiable with respect to the
            conditioning if gradients are enabled. Its parameters should not require gradients.
        prompts_at_once: class attribute; number of prompts per call of `encode_prompts`. Choose a
            large number if every call loads the text encoders.
        one_level: whether the cells of a call must have the same noise level. Batches are then cut
            by level, and `t` of such a batch is expanded from a single value (its stride is 0).
        on_host: paths of leaves of the conditioning whose values `denoise` reads. They stay on the
            CPU, so that it does not wait for the device.
    """

    latent_shape: tuple[int, int, int]
    resolution: int
    levels: Levels
    device: torch.device
    can_linearise: bool = False
    prompts_at_once: int = 64
    one_level: bool = False
    on_host: Collection[str] = ()

    @abstractmethod
    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return scaled latents, float32 [n, C, H, W]: the mean of the VAE's posterior."""

    @abstractmethod
    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning: a tensor, or nested mappings of tensors by name.

        The first axis of every leaf has length n, the number of prompts. The other axes must be
        padded to lengths that do not depend on the texts.
        """

    @abstractmethod
    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Any) -> torch.Tensor:
        """Return the model's prediction, [B, C, H, W], of a batch of B cells.

        Args:
            x_t: noised latents, float32 [B, C, H, W].
            t: times from the level table, [B]: int64 if they are whole numbers, else float32.
            conditioning: rows of what `encode_prompts` returned, one per cell.
        """

    def encode_null(self) -> Tree:
        """Return the conditioning of the empty prompt, one row, for `--guidance`."""
        raise NotImplementedError

    def preprocess(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the pixels of images on the CPU, one row each.

        With this method, `encode_images` and `posterior` also take what it returns in place of
        images. It runs in a thread of its own beside a GPU, and reads no weights.
        """
        raise NotImplementedError

    def batch_keys(self, conditioning: Any) -> Sequence[Hashable]:
        """Return a key per prompt; cells whose prompts have different keys share no batch.

        Without this method, all prompts can be in one batch.
        """
        raise NotImplementedError

    def prepare_compiling(self, conditioning: Any) -> bool | None:
        """Prepare the network for `--compile` and for these prompts, all of a run.

        Return whether all calls with as many cells have inputs of the same shapes from now on; None
        means yes.
        """

    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and standard deviation of the scaled latents, float32 [n, C, H, W] each.

        It is used by `--latent sample`.
        """
        raise NotImplementedError

    def mix_rest(self, rest: Any, weights: torch.Tensor) -> Tree:
        """Return the leaves of a mixture that are not floating-point, such as masks, as one row.

        `rest` has these leaves of all prompts, and `weights`, float32 [P], are those of the
        mixture. Floating-point leaves are averaged. Without this method the others must be equal
        for all prompts.
        """
        raise NotImplementedError

    def generate(
        self, texts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float
    ) -> Sequence[Image.Image]:
        """Return an image of each text, for `--fit-split generated`.

        Args:
            texts: prompts, [n].
            seeds: of the noise of each image, [n], below 2^63. An image depends on its own text and
                seed only, but for rounding.
            steps: number of steps of the model's own sampler.
            guidance: scale of classifier-free guidance; 1 or less means none.
        """
        raise NotImplementedError

    def offload(self) -> bool | None:
        """Keep the parts of the model on the CPU while they are not used, for `--offload model`.

        It is called before `network` is read. Return False if that is impossible.
        """
        return False

    def save_memory(self) -> bool | None:
        """Recompute activations in backward passes from now on; return False if that is impossible.

        It is called once, if the backward pass of a single cell runs out of memory.
        """
        return False


class Likelihood(Backbone, ABC):
    """A model that computes errors or negative log-likelihoods itself.

    Attributes:
        reduction: class attribute; how the errors of a text on its draws are combined into its
            score: `mean`, `mean-softmax` or `logsumexp`, see `bench.contracts.decision`. Strategies
            that eliminate texts compare means, so they need `mean`.
        draws_are_equal: class attribute; whether nothing is random, so that an image, or each of
            its views, has a single draw.
    """

    reduction: str
    draws_are_equal: bool = False

    @staticmethod
    def cell_flops(
        weights: Any, texts: Sequence[str], sizes: Sequence[tuple[int, int]], **parameters: Any
    ) -> Positive | None:
        """Return the mean operations of one evaluation, if they depend on texts and images.

        `sizes` are width and height of some images, and `parameters` all of the backbone's. It is
        asked instead of `evaluation_flops`. Encoders of images are not counted.
        """
        return None

    @abstractmethod
    def evaluate(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the error of each cell, float32 [B]; lower is better.

        Args:
            images: [B], of any size and mode. All cells of one image have the same object.
            texts: [B].
            draws: number of the draw of each cell, int64 [B]. All randomness must be derived from
                it. A draw has the same number for every image and text, and another one in a run
                with another seed.
        """

    def evaluate_of(
        self,
        images: Sequence[Image.Image],
        texts: Sequence[str],
        draws: NDArray[np.int64],
        n_draws: int,
    ) -> NDArray[np.float32]:
        """Return the errors as `evaluate` does, for a run of `n_draws` draws per image.

        A model overrides it if a draw depends on how many there are, such as one that hides a share
        of an image: draw k has the number seed · 100,000 + k, and the shares (k + ½) / n_draws are
        even over any sub-grid of draws that a strategy asks for.
        """
        return self.evaluate(images, texts, draws)

    def prior(self, texts: Sequence[str], draws: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return errors of texts without an image, float32 [B], for `--control text-only`."""
        raise NotImplementedError


class Classifier(Backbone, ABC):
    """A model that scores images against texts directly, such as CLIP."""

    @abstractmethod
    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts]; higher is better."""

    def score_sets(
        self, images: Sequence[Image.Image], sets: Sequence[Sequence[str]]
    ) -> NDArray[np.float32]:
        """Return logits of sets of one or more texts, float32 [images, sets].

        If this method is missing, `--template-rule mean` averages the logits of the texts.
        """
        raise NotImplementedError

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Learn from labelled images of another split, and return facts for the run's summary.

        It is called once, before `score`, if the spec has `learns=True`. Such a classifier reads no
        prompts; the text of a class is its name. The n `images` have any size and mode and are
        decoded one at a time. `labels` are the texts of their classes, as `score` gets them; every
        class has an image. The facts, such as the chosen regularisation, are JSON values.
        """
        raise NotImplementedError
