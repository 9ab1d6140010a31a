"""The manifest of a run: what it is, one model for the file and for every part of it.

Documents say what a file must hold, and keep what a newer version of the toolkit, or another hand,
wrote beside it. What came of a run is in `bench.store.summary`, and a sample's line in
`bench.store.records`: a million of them are read as columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from bench.store.fields import (
    Amount,
    Count,
    Document,
    Int,
    Name,
    Positive,
    RunId,
    Share,
)
from bench.store.identity import Identity, StrategyIdentity

MAX_STORED_DRAWS = 10_000_000


class Data(Document):
    """The images that a run is about."""

    name: Name
    """The registered name, or `folder`."""
    version: Int
    """Of the dataset's definition; raised when results change."""
    split: Name
    """Which part of the dataset."""
    n_total: Positive
    """Images of the whole split."""


class BackboneInfo(Document):
    """What scored."""

    name: Name
    """The registered name."""
    version: Int
    """Of the backbone's definition; raised when results change."""
    weights: str | None = None
    """Where its weights were read."""
    revision: str | None = None
    """The Hub's commit."""
    dtype: str
    """In which it computed."""
    trained_on: str | None
    """`dataset/split`; None: zero-shot."""


class Items(Document):
    """What the items of a run are, where they have texts of their own."""

    images: Positive
    """Of an item; all have as many."""
    texts: Positive
    """Of the item that has the most."""
    pool: Count
    """Different texts of the items asked for."""
    chance: Share
    """How often guessing gives the right answer."""
    image_chance: Share | None = None
    """The same of the image score."""
    group_chance: Share | None = None
    """The same of the group score."""
    images_compared: bool = False
    """Whether the strategy's scores compare across images, so that there are image scores."""


class ShardPart(Document):
    """Which part of a run a shard is."""

    index: Positive
    """Which one, from 1 on."""
    count: Positive
    """Of how many."""
    asked: Positive
    """Images asked for of all shards together."""
    places: list[Count]
    """Of each sample, its place in the split."""

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class StoredConfig(Document):
    """What the user asked for. Only what readers of a run need is named; all of it is kept."""

    dataset: str
    """As it was named."""
    backbone: str | None = None
    """As it was named."""
    split: str | None = None
    """None: the dataset's default."""
    data_dir: str | None = None
    """A local copy of the data."""
    weights: str | None = None
    """Other weights than the backbone's own."""
    template: str | list[str] | None = None
    """None: the dataset's own."""
    prompts: str | None = None
    """A file of prompts."""
    limit: Int | None = None
    """Only so many images."""


class Fitted(Document):
    """What a backbone that learned says of the result; every one says something else."""


class Manifest(Document):
    """`manifest.json`: what a run is, what it was asked for, and where it was made."""

    format: Count
    """Of this file; a higher one was written by a newer version."""
    run_id: RunId
    """Dataset, backbone, strategy, and the first 8 digits of the identity's hash."""
    identity: Identity
    """Everything that changes the numbers."""
    created: str
    """When, in ISO 8601."""
    config: StoredConfig
    """The settings, as the user gave them."""
    dataset: Data
    """What was scored."""
    backbone: BackboneInfo
    """What scored it."""
    strategy: StrategyIdentity
    """What decided."""
    classes: list[str] = Field(min_length=1)
    """Their names, in label order."""
    prompts: list[tuple[str, Count]]
    """Each prompt with the index of its class."""
    samples: list[str] = Field(min_length=1)
    """The ids of the images asked for."""
    environment: Mapping[str, Any]
    """Versions, machine and devices, and the state of the checkout."""
    replayed_from: str | None = None
    """Of a replay, the run whose errors were replayed."""
    private_data: bool = False
    """Published although others cannot get its data."""
    linearisation_cost: Amount | None = None
    """What a linearised draw counts as, in evaluations, where the strategy asks for some. Runs of
    versions that timed it do not say."""
    part: ShardPart | None = None
    """Of a shard, which part of the run it is."""
    asked: Positive | None = None
    """Of a run that was merged although shards are missing: the images asked for of all shards."""
    fitted: Fitted | None = None
    """What a backbone that learned says of the result, written before the first image is scored."""
    pairs_averaged: bool = False
    """Of antithetic draws, whether the standard errors of margins take each pair for one value."""
    items: Items | None = None
    """Of a dataset of items. Then there are no prompts, and the classes are names of answers."""

    @property
    def classifier(self) -> bool:
        """Whether a classifier scored: it has no draws, and so no loss and no plan."""
        return not self.identity.scoring.plain()

    @property
    def on_draws(self) -> bool:
        """Whether its decisions rest on draws, so that others may differ."""
        scoring = self.identity.scoring
        return scoring.loss is not None or scoring.reduction is not None

    @property
    def margin_errors_known(self) -> bool:
        """Whether the stored standard errors of margins are right, and `confidence` with them.

        Versions that did not average antithetic pairs took the two draws for independent ones.
        """
        return self.pairs_averaged or not self.identity.scoring.antithetic

    @property
    def draws(self) -> int | None:
        """N, the draws of the plan; None where the strategy's parameters do not say."""
        if self.classifier:
            return 1
        given = self.strategy.params.get("draws")
        return given if isinstance(given, int) and 0 < given <= MAX_STORED_DRAWS else None

    @property
    def class_of_column(self) -> list[int]:
        """The class of each column of errors.

        A column is a prompt, or a class where a rule joins its prompts before a strategy sees them.
        """
        if self.items is not None:
            return list(range(self.items.texts))
        if self.identity.template_rule in (None, "best"):
            return [index for _, index in self.prompts]
        return list(range(len(self.classes)))

    @property
    def total(self) -> int:
        """Images asked for."""
        return self.asked or len(self.samples)

    def as_unknown_as(self, others: Iterable[Self]) -> Self:
        """Return it with the errors of margins unknown where others' are, whose lines it takes."""
        if self.margin_errors_known and not all(one.margin_errors_known for one in others):
            return self.model_copy(update={"pairs_averaged": False})
        return self

    def unpriced(self) -> Self:
        """Return it without a price of a linearised draw, since a part of its cost was timed."""
        return self.model_copy(update={"linearisation_cost": None})

    @model_validator(mode="after")
    def _prompts_have_classes(self) -> Self:
        if any(index >= len(self.classes) for _, index in self.prompts):
            raise ValueError("a prompt's class is none of the classes")
        if self.part is not None and len(self.part.places) != len(self.samples):
            raise ValueError("a shard has one place for each sample")
        return self


MANIFEST_FORMAT = 1  # that is written today

Raw = Mapping[str, Any]


def _numbered(manifest: Raw) -> Raw:
    """Manifests of before the first release may have no format."""
    return {"format": 1, **manifest}


# Format → what makes the next one of a manifest's content. A step is added, and none is changed.
MIGRATIONS: dict[int, Callable[[Raw], Raw]] = {0: _numbered}


def migrated(manifest: Raw) -> Raw:
    """Return a manifest of any earlier format as today's."""
    known = manifest.get("format", 0)
    while isinstance(known, int) and known in MIGRATIONS:
        known, manifest = known + 1, {**MIGRATIONS[known](manifest), "format": known + 1}
    return manifest
