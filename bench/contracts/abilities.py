"""What a backbone may offer besides its contract, and whether it does.

Each ability is a protocol with a function that tells who has it. What a class or an instance
*declares* decides: a property is not evaluated, which may load a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from bench.contracts.backbone import Ensemble, Tree
    from bench.contracts.levels import Levels


class CountsTokens(Protocol):
    """A backbone's class that finds prompts that would be cut, before weights are read."""

    @staticmethod
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int]:
        """Return the tokens of each text and the most there may be; reads only the tokenizer."""


class ChecksWeights(Protocol):
    """A backbone's class that tells from configs and headers whether weights would load."""

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Raise `UserError` where making the backbone would; reads no tensor."""


class CountsOperations(Protocol):
    """A backbone's class that knows what an evaluation costs, from its configuration alone."""

    @staticmethod
    def evaluation_flops(weights: Any, resolution: int | None = None) -> float:
        """Return the floating-point operations of one evaluation."""


class KnowsItsMemory(Protocol):
    """A backbone's class that knows how much memory its weights take."""

    @staticmethod
    def memory(weights: Any, dtype: str, **parameters: Any) -> int:
        """Return the bytes of the parts that are in memory together, at the most."""


class PricesLinearisations(Protocol):
    """A backbone's class that knows what a linearised draw costs.

    It is counted, never timed: the same on every machine. Without it, a linearised draw counts as
    `bench.contracts.backbone.LINEARISATION_COST`.
    """

    @staticmethod
    def linearisation_cost(weights: Any, resolution: int | None = None) -> float:
        """Return what a forward pass with the gradient costs, in evaluations."""


class Linearises(Protocol):
    """A denoiser that is differentiable with respect to its conditioning.

    That is wherever gradients are enabled. Its parameters should ask for no gradient.

    Attributes:
        can_linearise: True, a class attribute.
    """

    can_linearise: bool


class TabulatesLevels(Protocol):
    """A backbone's class that knows its noise levels before weights are read."""

    @staticmethod
    def level_table(weights: Any, **parameters: Any) -> Levels:
        """Return what `levels` will be, for these parameters; reads configs only."""


class HasLevels(Protocol):
    """A denoiser with a level table; those without declare a schedule.

    Attributes:
        levels: its noise levels.
    """

    @property
    def levels(self) -> Levels:
        """The level table."""


class HasNull(Protocol):
    """A denoiser with a conditioning of no prompt, for `--guidance`."""

    def encode_null(self) -> Tree:
        """Return it, one row, with the leaves of `encode_prompts`."""


class HasPosterior(Protocol):
    """A denoiser that knows the distribution of an image's latent, for `--latent sample`."""

    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation, float32 [n, C, H, W] each, scaled as latents."""


class HasPrior(Protocol):
    """A likelihood that scores texts without an image, for `--control text-only`."""

    def prior(self, texts: Sequence[str], draws: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the error of each text alone, float32 [B], on the scale of `evaluate`."""


class MixesRest(Protocol):
    """A denoiser that knows what a mixture's masks are, or other leaves that are not floating.

    Floating leaves of a conditioning are mixed by their weights without its help.
    """

    def mix_rest(self, rest: Any, weights: torch.Tensor) -> Tree:
        """Return one row: what the leaves `rest` of all prompts are for weights, float32 [P]."""


class FoldsPrompts(Protocol):
    """A denoiser that can compute once what depends on the prompts alone."""

    def fold_prompts(self, conditioning: Any) -> Tree:
        """Return a tree with a row for each prompt of a conditioning.

        `denoise` takes rows of it in the conditioning's place, and still takes a conditioning.
        """


class EncodesMany(Protocol):
    """A denoiser that loads its text encoders for every call, one after another.

    Attributes:
        prompts_at_once: how many prompts it is given at a time, a class attribute.
    """

    prompts_at_once: int


class SavesMemory(Protocol):
    """A denoiser that can recompute activations in a backward pass instead of keeping them."""

    def save_memory(self) -> None:
        """Do so from now on; called once, where a single cell's backward pass does not fit."""


class HasNetwork(Protocol):
    """A denoiser whose network `--compile`, `--layout` and `--attention` can change in place.

    Attributes:
        network: the torch module that `denoise` calls; it may be a property.
    """

    @property
    def network(self) -> torch.nn.Module:
        """The module that `denoise` calls."""


def makes_ensembles(backbone: object) -> TypeGuard[Ensemble]:
    """Whether it has `score_sets`."""
    return declares(backbone, "score_sets")


def counts_tokens(backbone: object) -> TypeGuard[CountsTokens]:
    """Whether it has `token_counts`."""
    return declares(backbone, "token_counts")


def checks_weights(backbone: object) -> TypeGuard[ChecksWeights]:
    """Whether it has `check_weights`."""
    return declares(backbone, "check_weights")


def counts_operations(backbone: object) -> TypeGuard[CountsOperations]:
    """Whether it has `evaluation_flops`."""
    return declares(backbone, "evaluation_flops")


def knows_its_memory(backbone: object) -> TypeGuard[KnowsItsMemory]:
    """Whether it has `memory`."""
    return declares(backbone, "memory")


def prices_linearisations(backbone: object) -> TypeGuard[PricesLinearisations]:
    """Whether it has `linearisation_cost`."""
    return declares(backbone, "linearisation_cost")


def can_linearise(backbone: object) -> TypeGuard[Linearises]:
    """Whether it says `can_linearise = True`."""
    return getattr_static(backbone, "can_linearise", False) is True


def tabulates_levels(backbone: object) -> TypeGuard[TabulatesLevels]:
    """Whether it has `level_table`."""
    return declares(backbone, "level_table")


def has_levels(backbone: object) -> TypeGuard[HasLevels]:
    """Whether it has `levels`."""
    return declares(backbone, "levels")


def has_null(backbone: object) -> TypeGuard[HasNull]:
    """Whether it has `encode_null`."""
    return declares(backbone, "encode_null")


def has_posterior(backbone: object) -> TypeGuard[HasPosterior]:
    """Whether it has `posterior`."""
    return declares(backbone, "posterior")


def has_prior(backbone: object) -> TypeGuard[HasPrior]:
    """Whether it has `prior`."""
    return declares(backbone, "prior")


def mixes_rest(backbone: object) -> TypeGuard[MixesRest]:
    """Whether it has `mix_rest`."""
    return declares(backbone, "mix_rest")


def folds_prompts(backbone: object) -> TypeGuard[FoldsPrompts]:
    """Whether it has `fold_prompts`."""
    return declares(backbone, "fold_prompts")


def encodes_many(backbone: object) -> TypeGuard[EncodesMany]:
    """Whether it has `prompts_at_once`."""
    return declares(backbone, "prompts_at_once")


def saves_memory(backbone: object) -> TypeGuard[SavesMemory]:
    """Whether it has `save_memory`."""
    return declares(backbone, "save_memory")


def has_network(backbone: object) -> TypeGuard[HasNetwork]:
    """Whether it has `network`."""
    return declares(backbone, "network")


def samples_latents(views: object) -> bool:
    """Whether views say `samples_latents = True`: they are samples of the latent's posterior."""
    return getattr_static(views, "samples_latents", False) is True


def declares(thing: object, name: str) -> bool:
    """Whether a class or an instance has an attribute that is not None; none is evaluated."""
    return getattr_static(thing, name, None) is not None
