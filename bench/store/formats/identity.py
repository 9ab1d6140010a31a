"""Identity of a run: everything that changes its numbers and nothing else, with its hash."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import Field

from bench.contracts.parameters import Parameters
from bench.machine.precision import Precision
from bench.store.formats.fields import Count, Document, Int, Name, Positive, Share

IDENTITY_VERSION = 1


class Registered(Document):
    """A dataset, backbone or strategy, as a plugin registered it."""

    name: Name
    version: Int


class StrategyIdentity(Registered):
    """The strategy with all its parameters."""

    params: Parameters  # all parameters, including defaults


class DataIdentity(Registered):
    """Everything that determines the images."""

    split: str
    fingerprint: str
    decoding: Int | None = None  # version of the decoding of unusual images, None without any


class BackboneIdentity(Registered):
    """Everything that determines the outputs of the backbone."""

    weights: str | None  # hash of the checkpoint's files, None if it has none
    dtype: str
    parameters: Parameters = Field(default_factory=dict)  # parameters of the backbone
    tf32: bool | None = None  # whether float32 products are rounded to TF32, None if not
    encoding: str | None = None
    """Precision in which images are encoded if the network has half precision; None: float32."""
    float32_parts: bool | None = None
    """True if the network is in half precision, but tensors that its class keeps in float32 are in
    float32, as its library loads them. None if it has none of these, or they were rounded."""

    @property
    def precision(self) -> Precision:
        """Precision of the network, as `--dtype` names it."""
        return "tf32" if self.tf32 and self.dtype == "float32" else cast(Precision, self.dtype)


class ScoringIdentity(Document):
    """Definition of an error, and the draws that it is measured on; empty for a classifier."""

    loss: str | None = None  # function from differences to errors
    space: str | None = None  # space in which the error is measured
    draw_plan: str | None = None  # levels of the draws and their pairing
    noise: str | None = None  # source of the noise
    weighting: str | None = None  # weighting of the draws, None if uniform
    guidance: float | None = None  # scale of classifier-free guidance, None without guidance
    guidance_null: str | None = None
    """`draw` if all cells of a draw in a request share one unconditional prediction, None if each
    cell has its own."""
    latent: str | None = None  # choice of the latent, None for the mean of the VAE's posterior
    fit: str | None = None  # treatment of images that are not square, None for a centre crop
    subtract_null: bool | None = None  # whether the error without a text is subtracted
    views: str | None = None  # views as for `--views`, None for the image itself
    reduction: str | None = None  # reduction over the draws of a likelihood
    error_bits: int | None = None
    """Errors of a shared recording were rounded to multiples of about 2^-`error_bits` of their
    standard deviation over the prompts of a draw; None if they are exact."""

    @property
    def antithetic(self) -> bool:
        """Whether draws come in pairs of opposite noise."""
        return (self.draw_plan or "").startswith("antithetic")


class Source(Document):
    """Another run that this run depends on, such as the recording of a replay."""

    run_id: str
    identity: str  # hash of the other run's identity


class LearnedFrom(Document):
    """Images of the same dataset that the backbone was fitted to."""

    split: str
    fingerprint: str  # hash of the images, without those to be scored
    images: Positive


class Candidates(Source):
    """The run that provides the candidates of each image: its best classes."""

    top: Positive  # number of classes per image


class CalibratedOn(Source):
    """The run with the images on which parameters were chosen for a stated risk."""

    split: str
    images: Positive
    disagreements: Count
    risk: Share  # largest share of decisions that may differ from those of the full sweep
    level: Share  # confidence level of the risk, over the choice of these images
    of: Positive | None = None
    """Number of images of the split that these were chosen from, if the run decides the others;
    None if it is on other images."""


class Identity(Document):
    """Everything that changes a run's numbers. The hash is of `plain()`: only fields that were set.

    So a new field must have a default that keeps the numbers of earlier versions.
    """

    version: Int  # version of the definition of identities
    dataset: DataIdentity
    prompts: str  # hash of the prompts and their classes
    hierarchy: str | None = None  # hash of the tree of classes, None without a tree
    template_rule: str | None = None  # rule that joins several prompts of a class, None for `best`
    control: str | None = None  # alteration of the images in a blind control
    corrupt: str | None = None  # corruption of the images as for `--corrupt`, None without one
    backbone: BackboneIdentity
    scoring: ScoringIdentity  # error and draws
    strategy: StrategyIdentity
    seed: Int  # seed of the noise
    learned_from: LearnedFrom | None = None  # images that the backbone was fitted to
    candidates: Candidates | None = None  # run with each image's candidates, None for all classes
    replayed: Source | None = None  # run that was replayed, None if a model scored
    calibrated: CalibratedOn | None = None  # run on which parameters were chosen for a stated risk


def prompts_digest(prompts: Sequence[tuple[str, int]]) -> str:
    """Return the hash of prompts (text, class index). Their order matters."""
    return digest({"texts": [text for text, _ in prompts], "classes": [c for _, c in prompts]})


def digest(identity: Identity | Mapping[str, Any]) -> str:
    """Return the SHA-256 hash of an identity as 64 hex digits, whatever the order of its keys."""
    content = identity.plain() if isinstance(identity, Identity) else identity
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_id(dataset: str, backbone: str, strategy: str, identity: Identity) -> str:
    """Return dataset-backbone-strategy-<8 hex digits>."""
    return f"{dataset}-{backbone}-{strategy}-{digest(identity)[:8]}"
