"""`manifest.json`: settings, identity, images and environment of a run.

Fields that this version does not know, from a newer version or a user, are kept.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from bench.contracts.parameters import Parameters
from bench.store.formats.fields import Amount, Count, Document, Int, Name, Positive, RunId, Share
from bench.store.formats.identity import Identity, Registered, StrategyIdentity

MAX_STORED_DRAWS = 10_000_000


class Data(Registered):
    """The dataset of a run. A dataset from a folder has the name `folder`."""

    split: Name
    n_total: Positive  # number of images of the whole split


class BackboneInfo(Registered):
    """The backbone of a run."""

    weights: str | None = None  # source of the weights
    revision: str | None = None  # commit of the repository on the Hub
    dtype: str
    trained_on: str | None  # training data as `dataset/split`, None if zero-shot
    in_memory: Mapping[str, Any] | None = None
    """Description of a Python object used as the backbone, None if a command can name it."""
    loras: Mapping[str, float] | None = None  # scale of each LoRA that was added, by name

    @property
    def adapters(self) -> str | None:
        """LoRAs and their scales, such as `style × 0.5`; None without any."""
        pairs = set((self.loras or {}).items())
        for component in (self.in_memory or {}).get("adapters", {}).values():
            pairs |= {(name, scale) for name, scales in component.items() for scale in scales}
        return ", ".join(f"{name} × {scale:g}" for name, scale in sorted(pairs)) or None


class Rounded(Document):
    """What the precision of a run adds to the errors of float32, measured on a few images."""

    noise: Amount  # standard deviation of the addition, in standard deviations of a draw
    bias: str  # whether a prompt's mean addition is shown to be below the full sweep's error
    bias_at_most: Amount | None = None
    """Upper bound (95 %, all prompts together) of a prompt's mean addition, in standard errors of
    the full sweep; None if unknown."""
    decisions: Count  # images whose best prompt differs, among those and the prompts compared
    images: Count  # number of images compared
    prompts: Count  # number of prompts compared
    draws: Count  # number of draws of each
    arithmetic_alone: bool = False  # whether float32 computed with the same rounded weights

    @property
    def in_words(self) -> str:
        """Both figures and the decisions, as text."""
        differ = f"{self.decisions} of {self.images} decisions differ"
        return f"noise {self.noise:.2g}, bias {self.bias.removesuffix(' it')}, {differ}"


class Items(Document):
    """Description of a run's items: images with texts of their own."""

    images: Positive  # number of images per item
    texts: Positive  # largest number of texts in an item
    pool: Count  # number of different texts in all items
    chance: Share  # accuracy of guessing
    image_chance: Share | None = None  # image score of guessing
    group_chance: Share | None = None  # group score of guessing
    images_compared: bool = False  # whether scores are compared across images, for image scores


class ShardPart(Document):
    """Number and images of a shard of a run."""

    index: Positive  # number of the shard, counted from 1
    count: Positive  # number of shards
    asked: Positive  # number of images in all shards together
    places: list[Count]  # index of each sample in the split

    @override
    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class StoredConfig(Document):
    """Settings as the user gave them. The toolkit reads the fields below; all others are kept."""

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
        """The tags of the run as a list."""
        return [self.tag] if isinstance(self.tag, str) else self.tag or []

    @property
    def labels(self) -> str:
        """Tags and note as shown in listings, such as `#best first try`; "" if there are none."""
        return " ".join([*(f"#{tag}" for tag in self.tags), *filter(None, [self.note])])

    def labelled_as(self, other: Self) -> Self:
        """Return a copy with the note and the tags of `other`; its empty ones replace nothing."""
        labels = {name: getattr(other, name) or getattr(self, name) for name in ("note", "tag")}
        return self.model_copy(update={n: value for n, value in labels.items() if value})


class RiskChoice(Document):
    """The parameters chosen for a stated risk, or the number of images needed to state it."""

    risk: Share  # largest share of decisions that may differ from those of the full sweep
    params: Parameters | None = None  # parameters chosen, None if none keep this risk
    evaluation_equivalents_per_image: Amount | None = None  # cost with these parameters
    images_needed: Count | None = None  # number of images to sweep before the risk can be stated


class Sweep(Document):
    """The images of the run that were swept (all cells evaluated), to state a risk for the rest."""

    evaluation_equivalents_per_image: Amount  # cost per swept image
    choices: list[RiskChoice]  # choices for several risks


class GenerationCost(Document):
    """What generating images to learn from took, once for all runs that learn them."""

    images: Count  # of all classes
    evaluations: Count  # samples that the generator's network was asked for, by the images it made
    flop: Amount | None  # operations of these evaluations; None if unknown
    seconds: Amount  # on the machines that made them


class Fitted(Document):
    """Report of a backbone that learned on its fit. Other fields depend on the backbone."""

    generated: GenerationCost | None = None  # None if it learned from a split


class Probe(Document):
    """Outputs of a backbone in memory when the run began, to check that a later one is the same."""

    sample: str  # id of the image
    latent: list[float]  # some elements of the image's latent
    predictions: list[list[float]]  # some elements of each cell's prediction


class Manifest(Document):
    """`manifest.json`: settings, identity, images and environment of a run."""

    format: Count
    run_id: RunId  # dataset, backbone, strategy, and the first 8 hex digits of the identity's hash
    identity: Identity  # everything that changes the numbers
    created: str
    config: StoredConfig  # settings as the user gave them
    dataset: Data
    backbone: BackboneInfo
    strategy: StrategyIdentity
    classes: list[str] = Field(min_length=1)  # names of the classes, in label order
    prompts: list[tuple[str, Count]]  # prompts with the index of their class
    parents: list[Int] | None = None
    """Parent of each class and then of each inner node in the tree of classes, -1 for a root; None
    if there is no tree. Inner nodes are numbered after the classes, and a prompt of an inner node
    has its number as class."""
    samples: list[str] = Field(min_length=1)  # ids of the images
    environment: Mapping[str, Any]  # versions, machine, devices and state of the Git checkout
    replayed_from: str | None = None
    private_data: bool = False  # whether the run was published without its data
    evaluation_flop: Amount | None = None
    """Floating-point operations of one evaluation, or of one image for a classifier, without
    encoders; None if unknown, as in runs of early versions."""
    probe: Probe | None = None  # outputs of a backbone in memory
    linearisation_cost: Amount | None = None
    """Number of evaluations that a linearised draw counts as, for strategies that take gradients;
    None in runs of early versions, which measured the time instead."""
    part: ShardPart | None = None  # number and images of the shard, if this is one
    asked: Positive | None = None  # number of images in all shards, if some were absent in a merge
    fitted: Fitted | None = None
    warnings: list[str] | None = None  # that model and texts do not fit; None: none
    rounding: Rounded | None = None  # comparison of its precision with float32; None: none
    pairs_averaged: bool = False  # whether antithetic pairs count as one value in margin errors
    sweep: Sweep | None = None  # sweep of some of its own images, to keep a stated risk
    items: Items | None = None  # items of the dataset, in a run without shared prompts
    groups: str | None = None  # hash of the groups of all images of the split

    @property
    def classifier(self) -> bool:
        """Whether the backbone is a classifier, which has no draws and so nothing in `scoring`."""
        return not self.identity.scoring.plain()

    @property
    def on_draws(self) -> bool:
        """Whether decisions depend on random draws, and so may differ with other noise."""
        scoring = self.identity.scoring
        return scoring.loss is not None or scoring.reduction is not None

    @property
    def margin_errors_known(self) -> bool:
        """Whether the stored standard errors of margins, and `confidence`, are correct.

        Early versions treated the two draws of an antithetic pair as independent.
        """
        return self.pairs_averaged or not self.identity.scoring.antithetic

    @property
    def draws(self) -> int | None:
        """Number of draws in the plan, None if the strategy has no valid parameter `draws`."""
        if self.classifier:
            return 1
        draws = self.strategy.params.get("draws")
        return draws if isinstance(draws, int) and 0 < draws <= MAX_STORED_DRAWS else None

    @property
    def class_of_column(self) -> list[int]:
        """Class of each column of errors: a prompt or, with a rule other than `best`, a class."""
        if self.items is not None:
            return list(range(self.items.texts))
        if self.identity.template_rule in (None, "best"):
            return [index for _, index in self.prompts]
        return list(range(self.nodes))

    @property
    def nodes(self) -> int:
        """Number of classes and inner nodes of a tree."""
        return len(self.classes if self.parents is None else self.parents)

    @property
    def total(self) -> int:
        """Number of images, including those of shards that were absent in a merge."""
        return self.asked or len(self.samples)

    def narrowed(self, sample_ids: Iterable[str]) -> Self:
        """Return a manifest that asks only for those of its images that are named."""
        kept = set(sample_ids)
        return self.model_copy(update={"samples": [name for name in self.samples if name in kept]})

    def with_unknowns_of(self, others: Sequence[Self]) -> Self:
        """Return a copy for the joined records of several runs: what one lacks is unknown."""
        unknown: dict[str, Literal[False] | None] = {}
        if self.margin_errors_known and not all(run.margin_errors_known for run in others):
            unknown["pairs_averaged"] = False
        for name in ("linearisation_cost", "evaluation_flop"):
            if any(getattr(run, name) is None for run in others):
                unknown[name] = None
        return self.model_copy(update=unknown)

    @model_validator(mode="after")
    def _prompts_have_classes(self) -> Self:
        if any(index >= self.nodes for _, index in self.prompts):
            raise ValueError(f"the class of a prompt must be from 0 to {self.nodes - 1}")
        if self.part is not None and len(self.part.places) != len(self.samples):
            raise ValueError("part.places must have one place per sample")
        return self


MANIFEST_FORMAT = 1
Raw = Mapping[str, Any]

# Format → conversion to the next format. New formats add an entry; existing entries never change.
MIGRATIONS: dict[int, Callable[[Raw], Raw]] = {
    0: lambda manifest: {"format": 1, **manifest}  # versions before the first release wrote none
}


def migrate(manifest: Raw) -> Raw:
    """Return the content of a manifest of any earlier format in the newest format."""
    version = manifest.get("format", 0)
    while isinstance(version, int) and version in MIGRATIONS:
        manifest = {**MIGRATIONS[version](manifest), "format": version + 1}
        version += 1
    return manifest


def changed_code(manifests: Sequence[Manifest], of_one_run: bool = False) -> list[str]:
    """Return the Python distributions whose code differs between manifests that record hashes.

    `of_one_run`: a distribution that only some of them record took the place of another plugin.
    """
    hashes = _hashes(manifests)
    changed = {name for name, of_name in hashes.items() if len(of_name) > 1}
    if of_one_run:
        codes = [code for m in manifests if isinstance(code := m.environment.get("code"), Mapping)]
        changed |= {name for name in hashes if not all(name in code for code in codes)}
    return sorted(changed)


def mixed_code_warning(manifests: Sequence[Manifest], what: str) -> str | None:
    """Return a warning that parts of a run were scored by different code; None if they were not.

    `what` completes "The code of bench …", as in "has changed since this run began".
    """
    if not (changed := changed_code(manifests, of_one_run=True)):
        return None
    return (
        f"The code of {' and '.join(changed)} {what}. Images of one run are scored by different"
        " code, so their scores may not be comparable. --fresh starts over."
    )


def with_code_of(manifest: Manifest, others: Sequence[Manifest]) -> Manifest:
    """Return a copy that records the code hashes of all manifests, joined by ` + `."""
    hashes = _hashes([*others, manifest])
    if not hashes:
        return manifest
    code = {name: " + ".join(of_name) for name, of_name in sorted(hashes.items())}
    return manifest.model_copy(update={"environment": {**manifest.environment, "code": code}})


def _hashes(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """Return the different code hashes of each distribution, in the order of the manifests."""
    hashes: dict[str, list[str]] = {}
    for manifest in manifests:
        code = manifest.environment.get("code")
        for name, joined in code.items() if isinstance(code, Mapping) else ():
            earlier = hashes.setdefault(str(name), [])
            earlier += [sha for sha in str(joined).split(" + ") if sha not in earlier]
    return hashes
