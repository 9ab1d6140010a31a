"""Specs: the registrations of datasets, backbones, strategies and views.

A spec has only strings and numbers, so that listings and plans are quick. The class that it names,
its `target`, is imported on first use.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Annotated, Any, ClassVar, Literal, TypedDict

from bench.contracts.parameters import Parameter as Parameter
from bench.contracts.parameters import Spec as Spec
from bench.contracts.typed import Bound, Positive, PositiveInt

UNKNOWN = "unknown"  # `trained_on` of the user's own weights
UNDECLARED = "undeclared"  # `trained_on` of a spec that does not declare it
FITTED = "fitted"  # `trained_on` of a backbone that learns from a split of each dataset
GENERATED = "generated"  # a `--fit-split`: images made of the classes, `generated:NAME:KEY=VALUE,…`
ANY_PIPELINE = "*"  # in `pipelines`: any class that no other backbone loads
FOLDER = "folder"  # in stored runs, the name of the dataset and of the backbone that a path selects
CONDITIONS = (["below"], ["other"], ["present"])  # keys of a condition of an erratum


def provenance(trained_on: str | None) -> str:
    """Describe in words what a backbone was trained on, given its spec's `trained_on`."""
    if trained_on is None:
        return "zero-shot"
    if trained_on == FITTED:
        return "fitted on a split of the dataset"
    if trained_on in (UNKNOWN, UNDECLARED):
        return f"training data {trained_on}"
    return f"trained on {trained_on}"


def trained_on_generated(generator: str, trained_on: str | None) -> str:
    """Return the training data of what learns generated images: their generator, and its data."""
    return " + ".join(filter(None, [f"images made by {generator}", trained_on]))


def training_group(trained_on: str | None, weights: str) -> tuple[str, str]:
    """Return a key that two backbones share if and only if they were trained on the same data.

    If the training data is not declared, only backbones with the same weights share a key.
    `weights` is a fingerprint of them.
    """
    return provenance(trained_on), weights if trained_on in (UNKNOWN, UNDECLARED) else ""


Scorer = Literal["denoiser", "classifier", "likelihood"]

DECLARED = "bench.inputs.data:make_declared"  # target of a dataset that has a source, not a class

COLUMN_PARAMETERS = {
    "image_column": Parameter(None, help="the column of the images"),
    "label_column": Parameter(None, help="the column of the labels"),
    "id_column": Parameter(None, help="the column of ids, which become the sample ids"),
    "keep": Parameter((), "other columns that are kept", tuple[str, ...]),
}


class SourceColumns(TypedDict, total=False):
    """Columns at the source of a declared dataset: part → name of its column."""

    image: str
    label: str
    id: str


class Generation(TypedDict, total=False):
    """How a backbone generates images for a classifier to learn from."""

    images: int  # of a class
    steps: int
    guidance: float
    templates: list[str]  # of the prompts, in turn; without any, the dataset's template


class DownloadLayout(TypedDict, total=False):
    """Layout of a copy of the original download: one of the forms that the documentation lists."""

    root: str
    line: str
    images: str
    reader: str
    marker: str
    lists: Mapping[str, str]
    splits: Mapping[str, str]
    first_label: int
    table: str
    file_column: str
    label_column: str
    split_column: str
    split_values: Mapping[str, str]


class ItemFields(TypedDict, total=False):
    """Fields of a declared dataset of items that hold images, texts and answers."""

    file: str
    files: Mapping[str, str]
    folder: str
    group: str
    id: str
    images: list[str]
    texts: list[str]
    box: list[str]
    label: int
    pairing: list[int]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset: its classes, splits and prompt templates.

    Attributes:
        classes: readable class names in the order of the labels; None to read them from the data.
        phrases: class name → text that replaces `{class}` in a template, such as `an airplane`.
        splits: split name → number of images, or None if unknown.
        split: the split to evaluate unless the user names another.
        backbone: name of the default backbone.
        takes_data_dir: whether it can read a local copy that the user names with `--data-dir`.
        scheme: whether `NAME:SOURCE` selects this dataset, with the parameter `source`.
        paths: whether the path of a folder or file selects this dataset. Its class has an attribute
            `declared`, the class that reads declared datasets.
        source: source of a declared dataset, as on the command line: `hf:owner/name`, another
            scheme, or an absolute path. A declared dataset needs no target.
        found: class names as the data spells them, in the order of `classes`; empty if they differ
            at most in case and punctuation.
        split_names: split → its name at the source, if it differs.
        within: split → the split that it is a part of, so that they share images by design.
        duplicates: split → number of its images that are known to occur twice.
        columns: `image`, `label` and `id` → name of the column at the source.
        layout: layout of a copy of the original download, for `--data-dir`.
        item: for a declared dataset of items, the fields that hold images, texts and answers.
        templates: name → a set of templates, selected by `--template @NAME`.
        groups: columns whose values divide the images into groups, such as backgrounds, or elements
            of lists in a column, such as `npy[0]`.
        group_names: column of `groups` → value → its name; an empty name means no group.
        box: column of the box that an image is cropped to: x, y, width, height.
        border: number of pixels to cut from each side of every image.
        leave_out_others: whether images of undeclared classes are dropped; else they are an error.
        labels: name of a set of labels → the labels of each class, separated by spaces. Models that
            take labels of this set get them instead of texts.
        citation: the paper to cite.
        checksums: file of the original download → `md5:…` or `sha256:…`.
        unverified: whether its author could not load it; shown in listings and when it is used.
        items: whether its rows are items, images with texts of their own. Then it has no classes.
    """

    kind: ClassVar[str] = "dataset"

    target: str = ""
    classes: tuple[str, ...] | None = None
    phrases: Mapping[str, str] = field(default_factory=dict)
    template: str = "a photo of a {class}"
    splits: Mapping[str, PositiveInt | None] = field(default_factory=dict)
    split: str | None = None
    backbone: str | None = None
    homepage: str = ""
    takes_data_dir: bool = True
    scheme: bool = False
    paths: bool = False
    source: str | None = None
    found: tuple[str, ...] = ()
    split_names: Mapping[str, str] = field(default_factory=dict)
    within: Mapping[str, str] = field(default_factory=dict)
    duplicates: Mapping[str, int] = field(default_factory=dict)
    columns: SourceColumns = field(default_factory=SourceColumns)
    layout: DownloadLayout = field(default_factory=DownloadLayout)
    item: ItemFields = field(default_factory=ItemFields)
    templates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    group_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    box: str | None = None
    border: Annotated[int, Bound("at least", 0)] = 0
    leave_out_others: bool = False
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    unverified: bool = False
    items: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.classes, list):
            object.__setattr__(self, "classes", tuple(self.classes))
        if self.source and not self.target:
            object.__setattr__(self, "target", DECLARED)
            object.__setattr__(self, "parameters", {**COLUMN_PARAMETERS, **self.parameters})
        super().__post_init__()

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        count = len(self.classes or ())
        if self.found and len(self.found) != count:
            yield f"found must have a name for each of {count} classes, got {len(self.found)}"
        for name, labels in self.labels.items():
            if len(labels) != count or not all(map(str.split, labels)):
                yield f"labels.{name} must have one or more labels for each of {count} classes"
        if self.items and (self.border or self.leave_out_others):
            yield "a dataset of items must not have border or leave_out_others"
        if self.items and (self.classes is not None or self.phrases):
            yield "a dataset of items must not have classes or phrases"
        if wrong := [n for n in self.groups if not re.fullmatch(r"[^\[]+(\[\d{1,3}\])?", n)]:
            yield f"groups must be columns, or elements of lists such as npy[0], got {wrong[0]!r}"
        if self.splits and self.split not in (None, *self.splits):
            yield f"split must be one of {', '.join(self.splits)}, got {self.split!r}"


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(Spec):
    """A backbone: its kind, weights and training data.

    Attributes:
        scorer: `denoiser` (a diffusion model), `classifier` (scores directly, as CLIP does) or
            `likelihood` (computes errors itself).
        weights: Hub id, or `package:folder` in an installed package; None if the user names them.
        weights_by: parameter → value → weights to use for it, unless the user names others.
        trained_on: `dataset/split` that the weights were trained on; None for a zero-shot model. A
            spec without it is `undeclared`, and ranked separately.
        strategy: name of the default strategy; None for the toolkit's.
        draws: number of draws beyond which accuracy does not improve; default of all strategies.
            None to use each strategy's own number.
        plan: the draw plan: the noise levels at which the backbone distinguishes prompts.
        flops: floating-point operations of one evaluation, for planning.
        family: kind of model, shared by its other checkpoints, such as `sdxl`.
        pipelines: diffusers pipeline classes whose folders it loads. `--backbone FOLDER` selects it
            by the folder's `model_index.json`. `*` means any class that no other backbone loads.
        objects: classes, such as `diffusers.DiffusionPipeline`, whose instances Python callers may
            pass. The backbone is made as `Target(object, **parameters)`, and needs `label`,
            `settings` and `content()`; see `bench.running.prepare`.
        size: number of parameters of the network.
        encoder_size: number of parameters of its largest text encoder, which is freed before the
            network is loaded.
        gated: whether the Hub serves the weights only to users who accepted the licence there.
        resolution: side of the images in pixels.
        dtype: precision on a GPU, unless the user names another: half precision that the model was
            made for, or float32. None for a denoiser's `half_precision`, or else TF32; other kinds
            run in float32 then. On other devices the default is float32.
        template: the default prompt template; None for the dataset's.
        labels: the set of labels that it takes instead of texts, such as `imagenet`. Datasets can
            map it to their classes.
        exposure: known overlap of its training data with datasets, with the source.
        telling: noise levels that are known to be informative, with the source.
        requires: lowest version of a library that it needs, such as `diffusers>=0.32`.
        generation: how it generates images, for `--fit-split generated`; see `Generation`.
        learns: whether it learns from labelled images of another split, with `fit`. Then
            `trained_on` is `fitted`, and every run records the split.
        default: whether it is used if neither the user nor the dataset names a backbone.
        correction: what was wrong in runs of earlier versions: an erratum of them, which costs them
            their rank.
    """

    kind: ClassVar[str] = "backbone"

    scorer: Scorer = "denoiser"
    weights: str | None = None
    revision: str | None = None
    weights_by: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    trained_on: str | None = UNDECLARED
    strategy: str | None = None
    strategy_parameters: Mapping[str, Any] = field(default_factory=dict)
    draws: int | None = None
    plan: str = "grid"
    flops: Positive | None = None
    family: str | None = None
    pipelines: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    size: float | None = None
    encoder_size: float | None = None
    licence: str | None = None
    gated: bool = False
    resolution: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    template: str | None = None
    labels: str | None = None
    exposure: str | None = None
    telling: str | None = None
    requires: str | None = None
    generation: Generation = field(default_factory=Generation)
    learns: bool = False
    default: bool = False
    correction: str | None = None

    @property
    def takes_folders(self) -> bool:
        """Whether it has no weights of its own, so that runs are named after a folder."""
        return self.weights is None and bool(self.pipelines)

    @property
    def denoises(self) -> bool:
        """Whether it is a denoiser, so that cells of many images share a batch."""
        return self.scorer == "denoiser"

    @property
    def one_draw(self) -> bool:
        """Whether it scores an image once, without noise."""
        return self.scorer == "classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learns and self.trained_on == UNDECLARED:
            object.__setattr__(self, "trained_on", FITTED)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.learns and self.scorer != "classifier":
            yield f"learns=True requires scorer='classifier', got {self.scorer!r}"


@dataclass(frozen=True, kw_only=True)
class StrategySpec(Spec):
    """A strategy: how it is chosen and calibrated.

    Attributes:
        default: whether it is used if the user names no other.
        safest_first: settings among which `--risk` chooses, such as `{"samples": 100}`, ordered
            from those that keep most decisions of the full sweep to the cheapest. `bench learn`
            counts their disagreements, and `--risk` tests them in this order until one fails, so
            the order must not depend on the images.
        exhaustive: whether it evaluates every prompt on every draw and nothing else. The decisions
            of other strategies are compared with its own, and they are replayed on its recordings.
        learned: parameters that `Strategy.learn` learns from recordings (`bench learn`).
        recorder: strategy whose recordings it is replayed on; empty for the exhaustive one.
        unproven: parameters for a backbone that names no strategy, because nothing was recorded
            with such a backbone.
    """

    kind: ClassVar[str] = "strategy"

    default: bool = False
    safest_first: tuple[Mapping[str, Any], ...] = ()
    exhaustive: bool = False
    learned: tuple[str, ...] = ()
    recorder: str = ""
    unproven: Mapping[str, Any] = field(default_factory=dict)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        names = {frozenset(setting) for setting in self.safest_first}
        if len(names) > 1 or not frozenset().union(*names) <= set(self.parameters):
            yield "all settings of safest_first must set the same parameters"
        if unknown := [name for name in self.learned if name not in self.parameters]:
            yield f"learned must have parameters of the strategy only, got {unknown[0]!r}"


@dataclass(frozen=True, kw_only=True)
class ViewsSpec(Spec):
    """A kind of views, selected by `--views NAME` or `--views NAME:VALUE`.

    VALUE is the value of its first parameter.
    """

    kind: ClassVar[str] = "views"


@dataclass(frozen=True, kw_only=True)
class ExporterSpec(Spec):
    """A format of `bench export`, which writes a run for another tool.

    Attributes:
        repository: kind of repository on the Hugging Face Hub that takes its files (`bench export
            --push`); None: none does.
        several: whether it writes several files, in a folder, instead of one.
        adds: whether its files may be added to a folder that has others.
    """

    kind: ClassVar[str] = "exporter"

    repository: Literal["model", "dataset"] | None = None
    several: bool = False
    adds: bool = False


@dataclass(frozen=True, kw_only=True)
class ErratumSpec(Spec):
    """Something that was wrong in stored results, and the runs that it touches.

    Attributes:
        what: a sentence that says what was wrong.
        effect: `numbers` (numbers or decisions are wrong) and `withdrawn` cost a run its rank;
            `promise` (an interval, a cost or a stated risk was wrong), `data` (wrong or seen in
            training) and `words` do not.
        where: conditions on the fields of a manifest, by their dotted names; a run is touched if
            all conditions of one of these mappings hold. A condition is a value, a list of values,
            `{"below": VALUE}`, `{"other": [VALUES]}` or `{"present": true}`. Fields of the summary
            begin with `summary.`, and say whether a `promise` was wrong.
        certain: whether these conditions tell which runs are wrong; otherwise a run that fulfils
            them is *possibly* affected.
        since: version or date of what introduced it, if that is known.
        mended: where it was mended, such as `backbone janus-pro-1b, version 2`.
    """

    kind: ClassVar[str] = "erratum"

    target: str = "bench.store.errata:touched"
    what: str
    effect: Literal["numbers", "withdrawn", "promise", "data", "words"]
    where: tuple[Mapping[str, Any], ...]
    certain: bool = True
    since: str | None = None
    mended: str

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.where or not all(self.where):
            yield "where must be one or more mappings, each with a condition"
        for conditions in self.where:
            for name, condition in conditions.items():
                if isinstance(condition, Mapping) and [*condition] not in CONDITIONS:
                    yield f"the condition on {name} must have one key: below, other or present"


@dataclass(frozen=True, kw_only=True)
class CollectionSpec(Spec):
    """A named list of registered datasets, written `@NAME` on the command line."""

    kind: ClassVar[str] = "collection"

    target: str = "bench.running.parts.data:expand_datasets"
    datasets: tuple[str, ...] = ()

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.datasets or len(set(self.datasets)) < len(self.datasets):
            yield f"datasets must be one or more different names, got {self.datasets!r}"


@dataclass(frozen=True, kw_only=True)
class StudySpec(Spec):
    """A study's file in an installed package, run by `bench study NAME`.

    Attributes:
        file: the TOML file, such as `importlib.resources.files(__package__) / "mine.toml"`.
    """

    kind: ClassVar[str] = "study"

    target: str = "bench.running.study.course:run_study"
    file: Traversable

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.name.endswith(".toml"):
            yield "the name must not end with .toml, which would make it the name of a file"
