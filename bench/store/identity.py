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


class Registered(Document):
    """A dataset, backbone or strategy, as a plugin registered it."""

    name: Name
    version: Int


class StrategyIdentity(Registered):
    """The strategy with all its parameters."""

    params: Parameters  # all of its parameters, defaults included


class DataIdentity(Registered):
    """What determines the images."""

    split: str
    fingerprint: str
    decoding: Int | None = None  # version of the decoding of unusual images; None: all are usual


class BackboneIdentity(Registered):
    """What determines the backbone's numbers."""

    weights: str | None  # hash of the files; None: it has none
    dtype: str
    parameters: Parameters = Field(default_factory=dict)  # parameters of the backbone


class ScoringIdentity(Document):
    """How an error is measured, and on which draws; empty for a classifier, which has none."""

    loss: str | None = None  # function from differences to errors
    space: str | None = None  # space in which the error is measured
    draw_plan: str | None = None  # levels of the draws, and their pairing
    noise: str | None = None  # source of the noise
    weighting: str | None = None  # weights of the draws; None: uniform
    guidance: float | None = None  # scale of classifier-free guidance; None: no guidance
    guidance_null: str | None = None
    """What guidance predicts one null for: `draw`, all cells of a request's draw; None: a cell."""
    latent: str | None = None  # choice of the latent; None: the mean of the autoencoder's posterior
    fit: str | None = None  # fit of images that are not square; None: their centre
    subtract_null: bool | None = None  # whether the error without a text is subtracted
    views: str | None = None  # views, as for `--views`; None: the image itself
    reduction: str | None = None  # reduction of a likelihood's draws
    error_bits: int | None = None
    """Bits kept of a draw's spread over prompts in a shared recording; None: exact errors."""

    @property
    def antithetic(self) -> bool:
        """Whether draws come in pairs of opposite noise."""
        return (self.draw_plan or "").startswith("antithetic")


class Source(Document):
    """Another run that this one depends on, such as the one that a replay replays."""

    run_id: str
    identity: str  # hash of its identity


class LearnedFrom(Document):
    """Images of the same dataset that a backbone was fitted to."""

    split: str
    fingerprint: str  # hash of the images, without those to be scored
    images: Positive


class Candidates(Source):
    """The run whose best classes are the candidates of each image."""

    top: Positive  # number of classes per image


class CalibratedOn(Source):
    """The run on whose images a strategy's parameters were chosen for a stated risk."""

    split: str
    images: Positive
    disagreements: Count
    risk: Share  # largest share of decisions that may differ from those of the full sweep
    level: Share  # confidence level of the risk, over the choice of these images
    of: Positive | None = None
    """Size of the split that they were drawn from, whose other images the run decides; None: they
    are other images than the run's."""


class Identity(Document):
    """Everything that changes a run's numbers. `plain()`, as it was written, is hashed."""

    version: Int  # version of the definition of identities
    dataset: DataIdentity
    prompts: str  # hash of the texts and their classes
    hierarchy: str | None = None  # hash of the tree of classes; None: there is none
    template_rule: str | None = None  # rule that joins several prompts of a class; None: best
    control: str | None = None  # alteration of the images in a blind control
    corrupt: str | None = None  # corruption of the images, as for `--corrupt`; None: as they are
    backbone: BackboneIdentity
    scoring: ScoringIdentity  # error and draws
    strategy: StrategyIdentity
    seed: Int  # seed of the noise
    learned_from: LearnedFrom | None = None  # images that the backbone was fitted to
    candidates: Candidates | None = None  # source of each image's candidates; None: all classes
    replayed: Source | None = None  # run that was replayed; None: a model scored
    calibrated: CalibratedOn | None = None  # source of the strategy's parameters, by a stated risk


def prompts_digest(prompts: Sequence[tuple[str, int]]) -> str:
    """Return the hash of texts, each with the index of its class, in their order."""
    texts, classes = [text for text, _ in prompts], [index for _, index in prompts]
    return digest({"texts": texts, "classes": classes})


def digest(identity: Identity | Mapping[str, Any]) -> str:
    """Return the hash of an identity, 64 hex digits; the order of its content does not matter."""
    content = identity.plain() if isinstance(identity, Identity) else identity
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_id(dataset: str, backbone: str, strategy: str, identity: Identity) -> str:
    """Return dataset-backbone-strategy-<8 hex digits>."""
    return f"{dataset}-{backbone}-{strategy}-{digest(identity)[:8]}"
