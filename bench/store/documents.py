"""`manifest.json`: what a run is. Results are in `bench.store.summary` and `bench.store.records`.

Unknown fields, of a newer version of the toolkit or of a user, are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from bench.contracts.parameters import Parameters
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
from bench.store.identity import Identity, Registered, StrategyIdentity

MAX_STORED_DRAWS = 10_000_000


class Data(Registered):
    """The dataset of a run; its name is `folder` for a folder."""

    split: Name
    n_total: Positive  # number of images of the whole split


class BackboneInfo(Registered):
    """The backbone of a run."""

    weights: str | None = None  # origin of the weights
    revision: str | None = None  # commit of the Hub's repository
    dtype: str
    trained_on: str | None  # training data, `dataset/split`; None: zero-shot
    in_memory: Mapping[str, Any] | None = None
    """What the object in memory was that scored; None: weights that a command can name."""


class Items(Document):
    """Description of a run's items, images with texts of their own."""

    images: Positive  # number of images of each item
    texts: Positive  # largest number of texts in one item
    pool: Count  # number of different texts of the items
    chance: Share  # accuracy of guessing
    image_chance: Share | None = None  # image score of guessing
    group_chance: Share | None = None  # group score of guessing
    images_compared: bool = False  # whether scores compare across images: there are image scores


class ShardPart(Document):
    """The part of a run that a shard is."""

    index: Positive  # number of the shard, from 1 on
    count: Positive  # number of shards
    asked: Positive  # number of images of all shards together
    places: list[Count]  # place of each sample in the split

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class StoredConfig(Document):
    """Settings, as the user gave them. Readers of a run need these; others are kept, too."""

    dataset: str
    backbone: str | None = None
    split: str | None = None
    data_dir: str | None = None
    weights: str | None = None
    template: str | list[str] | None = None
    prompts: str | None = None
    limit: Int | None = None
    note: str | None = None  # a sentence about the run
    tag: str | list[str] | None = None

    @property
    def tags(self) -> list[str]:
        """The tags of the run, none or more."""
        return [self.tag] if isinstance(self.tag, str) else self.tag or []

    @property
    def labels(self) -> str:
        """The tags and the note, as listings show them; "" where there are none."""
        return " ".join([*(f"#{tag}" for tag in self.tags), *filter(None, [self.note])])

    def labelled_as(self, other: Self) -> Self:
        """Return these settings with the note and the tags of others, where they have some."""
        labels = {name: getattr(other, name) or getattr(self, name) for name in ("note", "tag")}
        return self.model_copy(update={n: value for n, value in labels.items() if value})


class RiskChoice(Document):
    """What a stated risk chooses: parameters and what they cost, or else the images it needs."""

    risk: Share  # largest share of decisions that may differ from those of the full sweep
    params: Parameters | None = None  # parameters chosen; None: none keep this risk
    evaluation_equivalents_per_image: Amount | None = None  # cost with them
    images_needed: Count | None = None  # number of images that would show it


class Sweep(Document):
    """The images of a split that were swept, so that a risk can be stated for the others."""

    evaluation_equivalents_per_image: Amount  # cost per image swept
    choices: list[RiskChoice]  # what several risks choose


class Fitted(Document):
    """Report of a backbone that learned on its fit; the fields depend on the backbone."""


class Probe(Document):
    """What a backbone in memory answered when the run began, to compare it with."""

    sample: str  # id of the image
    latent: list[float]  # some elements of the image's latent
    predictions: list[list[float]]  # some elements of each cell's prediction


class Manifest(Document):
    """`manifest.json`: what a run is, what it was asked for, and where it was made."""

    format: Count
    run_id: RunId  # dataset, backbone, strategy, and the first 8 digits of the identity's hash
    identity: Identity  # everything that changes the numbers
    created: str
    config: StoredConfig  # settings, as the user gave them
    dataset: Data
    backbone: BackboneInfo
    strategy: StrategyIdentity
    classes: list[str] = Field(min_length=1)  # names of the classes, in label order
    prompts: list[tuple[str, Count]]  # each prompt with the index of its class
    parents: list[Int] | None = None
    """Inner node above each class and each inner node, which are numbered after the classes; -1:
    none. None: there is no tree. The prompts of an inner node have its number as their class."""
    samples: list[str] = Field(min_length=1)  # ids of the images
    environment: Mapping[str, Any]  # versions, machine and devices, and the state of the checkout
    replayed_from: str | None = None
    private_data: bool = False  # whether it was published without its data
    probe: Probe | None = None  # of a run of a backbone in memory
    linearisation_cost: Amount | None = None
    """Evaluations that a linearised draw counts as, for strategies that use some; None in runs of
    versions that timed it."""
    part: ShardPart | None = None  # part of the run, if this is a shard
    asked: Positive | None = None  # number of images of all shards, if merged without some
    fitted: Fitted | None = None
    pairs_averaged: bool = False  # whether antithetic pairs count as one value in margin errors
    sweep: Sweep | None = None  # images of the run itself, on which its risk was calibrated
    items: Items | None = None  # items of the dataset; then there are no prompts

    @property
    def classifier(self) -> bool:
        """Whether a classifier scored: it has no draws, and so no loss and no plan."""
        return not self.identity.scoring.plain()

    @property
    def on_draws(self) -> bool:
        """Whether its decisions depend on draws, so that those of other draws may differ."""
        scoring = self.identity.scoring
        return scoring.loss is not None or scoring.reduction is not None

    @property
    def margin_errors_known(self) -> bool:
        """Whether the stored standard errors of margins, and `confidence`, are right.

        Versions that did not average antithetic pairs took the two draws for independent ones.
        """
        return self.pairs_averaged or not self.identity.scoring.antithetic

    @property
    def draws(self) -> int | None:
        """Number of draws of the plan; None: the strategy has no such parameter."""
        if self.classifier:
            return 1
        draws = self.strategy.params.get("draws")
        return draws if isinstance(draws, int) and 0 < draws <= MAX_STORED_DRAWS else None

    @property
    def class_of_column(self) -> list[int]:
        """Class of each column of errors: a prompt, or a class whose prompts a rule joins."""
        if self.items is not None:
            return list(range(self.items.texts))
        if self.identity.template_rule in (None, "best"):
            return [index for _, index in self.prompts]
        return list(range(self.nodes))

    @property
    def nodes(self) -> int:
        """Number of classes, with the inner nodes of a tree."""
        return len(self.classes if self.parents is None else self.parents)

    @property
    def total(self) -> int:
        """Number of images."""
        return self.asked or len(self.samples)

    def as_unknown_as(self, others: Sequence[Self]) -> Self:
        """Return a manifest for lines of all these runs, which knows no more than any of them.

        Margin errors are unknown if one's are; the cost of a linearised draw is if one timed it.
        """
        unknown: dict[str, Any] = {}
        if self.margin_errors_known and not all(run.margin_errors_known for run in others):
            unknown["pairs_averaged"] = False
        if self.linearisation_cost and any(run.linearisation_cost is None for run in others):
            unknown["linearisation_cost"] = None
        return self.model_copy(update=unknown)

    @model_validator(mode="after")
    def _prompts_have_classes(self) -> Self:
        if any(index >= self.nodes for _, index in self.prompts):
            raise ValueError("a prompt's class is not one of the classes")
        if self.part is not None and len(self.part.places) != len(self.samples):
            raise ValueError("a shard has one place for each sample")
        return self


MANIFEST_FORMAT = 1
Raw = Mapping[str, Any]

# Format → function to the next format. A step is added, and none is changed.
MIGRATIONS: dict[int, Callable[[Raw], Raw]] = {
    0: lambda manifest: {"format": 1, **manifest}  # before the first release, there was no format
}


def migrated(manifest: Raw) -> Raw:
    """Return the content of a manifest of any earlier format in today's format."""
    version = manifest.get("format", 0)
    while isinstance(version, int) and version in MIGRATIONS:
        manifest = {**MIGRATIONS[version](manifest), "format": version + 1}
        version += 1
    return manifest


def changed_code(manifests: Sequence[Manifest]) -> list[str]:
    """Return the distributions whose sources are not the same in all manifests that know them."""
    return sorted(name for name, hashes in _hashes(manifests).items() if hashes[1:])


def mixed_code_warning(manifests: Sequence[Manifest], what: str) -> str | None:
    """Return a warning that the images of one run were scored by different code, if they were."""
    if not (changed := changed_code(manifests)):
        return None
    return (
        f"The code of {' and '.join(changed)} {what}: images of one run are scored by different"
        " code, and their scores may not be comparable. --fresh starts over."
    )


def with_code_of(manifest: Manifest, others: Sequence[Manifest]) -> Manifest:
    """Return a manifest that records the code of all manifests: hashes joined by ` + `."""
    hashes = _hashes([*others, manifest])
    if not hashes:
        return manifest
    code = {name: " + ".join(of_name) for name, of_name in sorted(hashes.items())}
    return manifest.model_copy(update={"environment": {**manifest.environment, "code": code}})


def _hashes(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """Return the different hashes of each distribution's code, in order."""
    hashes: dict[str, list[str]] = {}
    for manifest in manifests:
        code = manifest.environment.get("code")
        for name, joined in code.items() if isinstance(code, Mapping) else ():
            earlier = hashes.setdefault(str(name), [])
            earlier += [sha for sha in str(joined).split(" + ") if sha not in earlier]
    return hashes
