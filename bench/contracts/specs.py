"""Specs: what a plugin says of a dataset, a backbone or a strategy without importing it.

A spec is a few strings and numbers, so that listing and planning cost nothing. The class behind
it, named by `target`, is imported on first use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar, Literal

from bench.contracts.parameters import Parameter as Parameter
from bench.contracts.parameters import Spec as Spec
from bench.errors import UserError

UNKNOWN = "unknown"  # the user's own weights
ANY_PIPELINE = "*"  # among a spec's `pipelines`: any class that no other backbone loads
UNDECLARED = "undeclared"  # a spec without `trained_on`
FITTED = "fitted"  # a spec whose class learns from a split of each dataset


def provenance(trained_on: str | None) -> str:
    """Return in words what a backbone was trained on, from a spec's `trained_on`."""
    if trained_on is None:
        return "zero-shot"
    if trained_on == FITTED:
        return "fitted on a split of the dataset"
    if trained_on in (UNKNOWN, UNDECLARED):
        return f"training data {trained_on}"
    return f"trained on {trained_on}"


def training_group(trained_on: str | None, weights: str) -> tuple[str, str]:
    """Return a key that two backbones share exactly if they were trained on the same data.

    Where that is not declared, only those of the same weights share it; `weights` is a fingerprint.
    """
    return provenance(trained_on), weights if trained_on in (UNKNOWN, UNDECLARED) else ""


Scorer = Literal["denoiser", "classifier", "likelihood"]
# Reads a dataset that declares its source in place of a class.
DECLARED = "bench.inputs.declared:Declared"
COLUMN_PARAMETERS = {
    "image_column": Parameter(None, help="the column of the images"),
    "label_column": Parameter(None, help="the column of the labels"),
    "id_column": Parameter(None, help="the column of ids, which become the sample ids"),
    "keep": Parameter((), "other columns that are kept", tuple[str, ...]),
}


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset: its classes, splits and prompt templates.

    Attributes:
        classes: readable class names in label order; None: read from the data.
        phrases: class name → replacement of `{class}` in a template, such as `an airplane`.
        template: the prompt template.
        splits: split name → number of images (None where unknown).
        split: the split that is evaluated unless the user names another.
        backbone: the default backbone's name.
        homepage: web page of the data.
        takes_data_dir: whether it can use a local copy that the user names with `--data-dir`.
        scheme: whether `NAME:SOURCE` on the command line means this dataset, made with `source`.
        source: source of a declared dataset, as on the command line: `hf:owner/name`, another
            scheme, or an absolute path. A declared dataset needs no target.
        found: class names in the data, in the order of `classes`; empty: the same names, up to
            case and punctuation.
        split_names: split → its name at the source, where it differs.
        columns: `image`, `label` and `id` → the column's name at the source.
        layout: the layout of a copy of the original download, for `--data-dir`.
        item: for a declared dataset of items, the fields of images, texts and right answers.
        templates: name → the templates of a set, which `--template @NAME` uses.
        groups: columns whose values divide the images into groups, such as backgrounds.
        box: the column of the box to which an image is cropped: x, y, width, height.
        border: number of pixels that are cut from each side of every image.
        leave_out_others: whether images of undeclared classes are left out; else they are refused.
        labels: name of a set of labels → the labels of each class, separated by spaces; a model
            that takes labels of this set gets them in place of a text.
        licence: licence of the data.
        citation: the paper to cite.
        checksums: file of the original download → `md5:…` or `sha256:…`.
        unverified: whether its author could not load it; shown in listings and when it is used.
        items: whether its rows are items, images with texts of their own; then it has no classes.
    """

    kind: ClassVar[str] = "dataset"

    target: str = ""
    classes: tuple[str, ...] | None = None
    phrases: Mapping[str, str] = field(default_factory=dict)
    template: str = "a photo of a {class}"
    splits: Mapping[str, int | None] = field(default_factory=dict)
    split: str | None = None
    backbone: str | None = None
    homepage: str = ""
    takes_data_dir: bool = True
    scheme: bool = False
    source: str | None = None
    found: tuple[str, ...] = ()
    split_names: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    item: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    box: str | None = None
    border: int = 0
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
            yield f"found has {len(self.found)} names, and there are {count} classes"
        for name, labels in self.labels.items():
            if len(labels) != count or not all(map(str.split, labels)):
                yield f"labels.{name} needs a label or more for each of the {count} classes"
        if self.border < 0 or (self.items and (self.border or self.leave_out_others)):
            yield f"border={self.border} cannot be cut"
        if self.items and (self.classes is not None or self.phrases):
            yield "items have no classes and no phrases"
        if self.splits and self.split not in (None, *self.splits):
            yield f"split={self.split!r} is not one of splits"
        if any(count is not None and count < 1 for count in self.splits.values()):
            yield f"splits={self.splits!r} has an empty one"


@dataclass(frozen=True, kw_only=True)
class BackboneSpec(Spec):
    """A backbone: its kind, weights and training data.

    Attributes:
        scorer: `denoiser` (a diffusion model), `classifier` (scores directly, as CLIP does) or
            `likelihood` (returns errors itself).
        weights: a Hub id, `package:folder` inside an installed package, or None: the user's.
        revision: the Hub revision.
        weights_by: parameter → its value → its weights, unless the user names others.
        trained_on: `dataset/split` on which the weights were trained; an explicit None: zero-shot.
            Without it a backbone is `undeclared`, and ranked apart.
        strategy: the default strategy's name; None: the toolkit's.
        strategy_parameters: parameters of the default strategy.
        draws: number of draws beyond which more do not decide better, the default of every
            strategy; None: the strategy's own number.
        plan: the draw plan: the noise levels at which the backbone tells prompts apart.
        flops: floating-point operations of one evaluation, for the plan.
        family: the kind of model, which its other weights share, such as `sdxl`.
        pipelines: the pipeline classes of diffusers whose folders it loads: `--backbone FOLDER`
            picks it by the folder's `model_index.json`. `*` is any class that no other loads.
        objects: classes, such as `diffusers.DiffusionPipeline`, whose objects a caller of Python
            may hand over: the backbone is made as `Target(object, **parameters)`, and has `label`,
            `settings` and `content()`; see `bench.running.in_memory`.
        size: number of parameters of the network.
        encoder_size: number of parameters of its largest text encoder, which is freed before the
            network is loaded.
        licence: licence of the weights.
        gated: whether the Hub gives the weights only to those who accepted the licence there.
        resolution: side of the images in pixels.
        dtype: default dtype, such as that of the training.
        template: the prompt template that it needs, unless the user names one; None: the dataset's.
        labels: the set of labels that it takes in place of texts, such as `imagenet`; a dataset may
            map them to its classes.
        exposure: known overlap of its training data with datasets, with the source.
        telling: noise levels that are known to matter, with the source.
        requires: lowest version of a library that it needs, such as `diffusers>=0.32`.
        learns: whether its class learns from labelled images of another split, with `fit`; then
            `trained_on` is `fitted`, and every run records the split.
        default: whether it is used where neither the user nor the dataset names a backbone.
        correction: the mistake in runs of earlier versions; shown whenever one is read.
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
    flops: float | None = None
    family: str | None = None
    pipelines: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    size: float | None = None
    encoder_size: float | None = None
    licence: str | None = None
    gated: bool = False
    resolution: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    template: str | None = None
    labels: str | None = None
    exposure: str | None = None
    telling: str | None = None
    requires: str | None = None
    learns: bool = False
    default: bool = False
    correction: str | None = None

    @property
    def takes_folders(self) -> bool:
        """Whether it has no weights of its own, so that runs are named after a folder."""
        return self.weights is None and bool(self.pipelines)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learns and self.trained_on == UNDECLARED:
            object.__setattr__(self, "trained_on", FITTED)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.learns and self.scorer != "classifier":
            yield "learns=True is for classifiers"
        if self.flops is not None and not (self.flops > 0 and isfinite(self.flops)):
            yield f"flops={self.flops} is not above 0"


@dataclass(frozen=True, kw_only=True)
class StrategySpec(Spec):
    """A strategy.

    Attributes:
        default: whether it is used where the user names no other.
        safest_first: settings among which `--risk` chooses, such as `{"samples": 100}`, from those
            that keep most decisions of the full sweep to the cheapest. `bench calibrate` tests them
            in this order up to the first that fails, so it is fixed before any image is seen.
        exhaustive: whether it evaluates every prompt on every draw and nothing else. Others are
            compared with its decisions, and its recordings are replayed.
        learned: parameters that are learned from recordings → the strategy of the recordings.
        recorder: strategy whose recordings it is replayed on; empty: the exhaustive one, or that of
            `learned`.
        unproven: parameters with which a backbone uses it that names no strategy, since nothing was
            recorded with such a backbone.
        retired: parameters of earlier versions → the value that they have now. It is recorded, so
            that run ids stay, and no other is accepted.
    """

    kind: ClassVar[str] = "strategy"

    default: bool = False
    safest_first: tuple[Mapping[str, Any], ...] = ()
    exhaustive: bool = False
    learned: Mapping[str, str] = field(default_factory=dict)
    recorder: str = ""
    unproven: Mapping[str, Any] = field(default_factory=dict)
    retired: Mapping[str, Any] = field(default_factory=dict)

    def is_default(self, name: str, value: Any) -> bool:
        """Return whether a parameter has its default, or the one value that is left of it."""
        return self.retired.get(name, self) == value or super().is_default(name, value)

    def resolve_parameters(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return every parameter with its value; see `Spec`, and `retired`."""
        for name, value in self.retired.items():
            if str(overrides.get(name, value)) != str(value):
                raise UserError(
                    f"{self.kind} {self.name!r}: {name}={overrides[name]} is of an earlier version;"
                    f" {name} is always {value} now. Such a run can be shown but not resumed."
                )
        return super().resolve_parameters(
            {name: value for name, value in overrides.items() if name not in self.retired}
        )

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        names = {frozenset(setting) for setting in self.safest_first}
        if len(names) > 1 or not frozenset().union(*names) <= set(self.parameters):
            yield "each of safest_first sets the same of its parameters"


@dataclass(frozen=True, kw_only=True)
class ViewsSpec(Spec):
    """Views of an image, as `--views NAME` or `--views NAME:VALUE` takes them.

    The value is that of the first parameter.
    """

    kind: ClassVar[str] = "views"
