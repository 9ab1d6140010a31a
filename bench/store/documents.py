"""The documents of a run: one model for every file and every part of one.

They say what a document must hold, and keep what a newer version of the toolkit, or another hand,
wrote beside it. A sample's line is in `bench.store.records`: a million of them are read as columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from bench.store.fields import (
    Amount,
    Count,
    Document,
    Int,
    Interval,
    Name,
    Positive,
    RunId,
    Share,
    said,
)
from bench.store.identity import Identity, Strategy

MOST_DRAWS = 10_000_000


class Data(Document):
    """The images that a run is about."""

    name: Name
    version: Int
    split: Name
    n_total: Positive
    """Images of the whole split."""


class Counted(Data):
    """The images that a summary is about."""

    n_samples: Positive


class Backbone(Document):
    """What scored."""

    name: Name
    version: Int
    weights: str | None = None
    revision: str | None = None
    dtype: str
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
    group_chance: Share | None = None
    images_compared: bool = False
    """Whether the strategy's scores compare across images, so that there are image scores."""


class Part(Document):
    """Which part of a run a shard is."""

    index: Positive
    count: Positive
    asked: Positive
    """Images asked for of all shards together."""
    places: list[Count]
    """Of each sample, its place in the split."""

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Settings(Document):
    """What the user asked for. Only what readers of a run need is named; all of it is kept."""

    dataset: str
    backbone: str | None = None
    split: str | None = None
    data_dir: str | None = None
    weights: str | None = None
    template: str | list[str] | None = None
    prompts: str | None = None
    limit: Int | None = None


class Fitted(Document):
    """What a backbone that learned says of the result; every one says something else."""


class Manifest(Document):
    """`manifest.json`: what a run is, what it was asked for, and where it was made."""

    format: Count
    run_id: RunId
    identity: Identity
    created: str
    config: Settings
    dataset: Data
    backbone: Backbone
    strategy: Strategy
    classes: list[str] = Field(min_length=1)
    prompts: list[tuple[str, Count]]
    """Each prompt with the index of its class."""
    samples: list[str] = Field(min_length=1)
    environment: Mapping[str, Any]
    replayed_from: str | None = None
    private_data: bool = False
    """Published although others cannot get its data."""
    linearisation_cost: Amount | None = None
    """What a linearised draw counts as, in evaluations, where the strategy asks for some. Runs of
    versions that timed it do not say."""
    part: Part | None = None
    """Of a shard, which part of the run it is."""
    asked: Positive | None = None
    """Of a run that was merged although shards are missing: the images asked for of all shards."""
    fitted: Fitted | None = None
    """What a backbone that learned says of the result, written before the first image is scored."""
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
    def draws(self) -> int | None:
        """N, the draws of the plan; None where the strategy's parameters do not say."""
        if self.classifier:
            return 1
        given = self.strategy.params.get("draws")
        return given if isinstance(given, int) and 0 < given <= MOST_DRAWS else None

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


class Group(Document):
    """The samples of one group."""

    group: str
    n: Positive
    accuracy: Share
    accuracy_ci95: Interval


class Metrics(Document):
    """How right the decisions were. Versions before the first release wrote no macro averages."""

    accuracy: Share
    accuracy_ci95: Interval
    balanced_accuracy: Share
    precision_weighted: Share
    recall_weighted: Share
    f1_weighted: Share
    precision_macro: Share | None = None
    recall_macro: Share | None = None
    f1_macro: Share | None = None
    top5_accuracy: Share | None = None
    """None where there are five classes or fewer."""
    candidate_recall: Share | None = None
    """Of a run among candidates, the share of images whose class was one of them: no strategy can
    be right more often."""
    chance: Share | None = None
    """The accuracy of guessing: one over the number of classes, or of an item's answers."""
    text_score: Share | None = None
    """Of items with several images: the share in which every image has its text; the accuracy."""
    image_score: Share | None = None
    """The share in which every text has its image; None where images do not compare."""
    image_score_ci95: Interval | None = None
    image_chance: Share | None = None
    group_score: Share | None = None
    """The share in which both are right; None where images do not compare."""
    group_score_ci95: Interval | None = None
    group_chance: Share | None = None
    worst_group: Group | None = None
    """Of a dataset with groups, the one with the lowest accuracy."""


class Cost(Document):
    """What the decisions took.

    Evaluation equivalents are one for each evaluation, and for each linearised draw what forward
    and backward pass cost in evaluations. Before there were linearisations, a summary had none:
    then an evaluation equivalent was an evaluation.
    """

    evaluations: Count
    evaluations_per_image: Amount
    linearisations: Count = 0
    evaluation_equivalents: Amount | None = None
    evaluation_equivalents_per_image: Amount | None = None
    linearisation_cost: Amount | None = None
    """What a linearised draw counted as; None where it was timed."""
    seconds: Amount | None
    images_per_second: Amount | None
    total_seconds: Amount | None
    peak_memory_bytes: Count | None = None

    @property
    def timed(self) -> bool:
        """Whether the equivalents rest on a clock, so on one machine and one day."""
        return self.linearisations > 0 and self.linearisation_cost is None

    @property
    def equivalents_per_image(self) -> float:
        """Evaluation equivalents per image."""
        known = self.evaluation_equivalents_per_image
        return self.evaluations_per_image if known is None else known


class Ends(Document):
    """How many images each end has, of a strategy that says what ended them."""

    bound: Count = 0
    """Its test left one class."""
    ceiling: Count = 0
    """A limit on the cost left prompts out or ended the image: no guarantee holds for it."""
    exhausted: Count = 0
    """All draws were used up."""


class Summary(Document):
    """`summary.json`: metrics and cost; with its folder, the object that `--json` prints."""

    run_id: RunId
    status: str
    dataset: Counted
    backbone: Backbone
    strategy: Strategy
    metrics: Metrics
    cost: Cost
    failed_samples: Count
    decided_by: Ends | None = None
    """None: the strategy does not say what ended an image."""
    replayed_from: str | None = None
    fitted: Fitted | None = None
    """What a backbone that learned says of the result."""
    results_dir: str | None = None
    """Where it was made."""

    def made_in(self, folder: Path, fitted: Fitted | None) -> Self:
        """Return it with where it was made, and what a backbone that learned says of the result."""
        place = said(results_dir=str(folder.resolve()), fitted=fitted)
        return self.model_copy(update=place)
