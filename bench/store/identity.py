"""Identity: the hash of everything that changes a run's numbers, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from bench.contracts.parameters import Parameters
from bench.store.fields import Count, Document, Int, Name, Positive, Share

IDENTITY_VERSION = 1


class StrategyIdentity(Document):
    """What decided, with all its parameters."""

    name: Name
    """The registered name."""
    version: Int
    """Of its definition; raised when results change."""
    params: Parameters
    """All of its parameters, defaults included."""


class DataIdentity(Document):
    """What decides the images."""

    name: str
    """The registered name."""
    version: Int
    """Of the dataset's definition."""
    split: str
    """Which part of it."""
    fingerprint: str
    """A hash of all images and labels of the split."""
    decoding: Int | None = None
    """How images are decoded that are not ordinary, where there are any."""


class BackboneIdentity(Document):
    """What decides the backbone's numbers."""

    name: str
    """The registered name."""
    version: Int
    """Of its definition."""
    weights: str | None
    """A hash of the files; None: it has none."""
    dtype: str
    """In which it computed."""
    parameters: Parameters = Field(default_factory=dict)
    """Its own parameters."""


class ScoringIdentity(Document):
    """How an error is measured, and on which draws; empty for a classifier, which has none."""

    loss: str | None = None
    """How a difference becomes an error."""
    space: str | None = None
    """In which the error is measured."""
    draw_plan: str | None = None
    """On which levels, and how draws are paired."""
    noise: str | None = None
    """Where the noise is from."""
    weighting: str | None = None
    """None: uniform."""
    guidance: float | None = None
    """The scale of classifier-free guidance; None: none."""
    latent: str | None = None
    """None: the mean of the autoencoder's posterior."""
    fit: str | None = None
    """How an image that is not square is fitted; None: its middle."""
    subtract_null: bool | None = None
    """Whether the error without a text is subtracted."""
    views: str | None = None
    """As `--views` takes them; None: the image itself."""
    reduction: str | None = None
    """How a likelihood's draws are put together."""

    @property
    def antithetic(self) -> bool:
        """Whether draws come in pairs of opposite noise."""
        return (self.draw_plan or "").startswith("antithetic")


class Source(Document):
    """The run that a replay replays."""

    run_id: str
    """Its id."""
    identity: str
    """The hash of its identity."""


class LearnedFrom(Document):
    """What a backbone that learns was fitted on."""

    split: str
    """Of the same dataset."""
    fingerprint: str
    """Of the images that it was given: without those that are to be scored."""
    images: Positive
    """How many."""


class Candidates(Source):
    """The run whose best classes are the candidates of each image."""

    top: Positive
    """How many of its best classes."""


class CalibratedOn(Source):
    """The run on whose images a strategy's parameters were chosen for a stated risk."""

    split: str
    """Of the same dataset."""
    images: Positive
    """How many."""
    disagreements: Count
    """Of these images, those that the parameters decided otherwise than the full sweep."""
    risk: Share
    """The largest share of decisions that may differ from those of the full sweep."""
    level: Share
    """How surely it is kept, over the choice of these images."""


class Identity(Document):
    """Everything that changes a run's numbers. What is hashed is `plain()`, as it was written."""

    version: Int
    """Of the way in which identities are made."""
    dataset: DataIdentity
    """The images."""
    prompts: str
    """The hash of the texts and their classes."""
    template_rule: str | None = None
    """How several prompts of a class make its score; None: best."""
    control: str | None = None
    """How the images were destroyed, in a blind control."""
    backbone: BackboneIdentity
    """The network."""
    scoring: ScoringIdentity
    """The error and the draws."""
    strategy: StrategyIdentity
    """The decision."""
    seed: Int
    """Of the noise."""
    learned_from: LearnedFrom | None = None
    """None: nothing was learned for this run."""
    candidates: Candidates | None = None
    """None: all classes are scored."""
    replayed: Source | None = None
    """The run that was replayed; None: a model scored."""
    calibrated: CalibratedOn | None = None
    """None: nobody stated a risk."""


def prompts_digest(prompts: Sequence[tuple[str, int]]) -> str:
    """Return the hash of texts, each with the index of its class, in their order."""
    texts, classes = [text for text, _ in prompts], [index for _, index in prompts]
    return digest({"texts": texts, "classes": classes})


def digest(identity: Identity | Mapping[str, Any]) -> str:
    """Return the identity's hash, 64 hex digits; the same for the same content in any order."""
    content = identity.plain() if isinstance(identity, Identity) else identity
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_id(dataset: str, backbone: str, strategy: str, identity: Identity) -> str:
    """Return dataset-backbone-strategy-<8 hex digits>; there is no time in it."""
    return f"{dataset}-{backbone}-{strategy}-{digest(identity)[:8]}"
