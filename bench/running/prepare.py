"""Settings → `Names` → `Content` → `PreparedRun`, with every refusal that needs no loaded weights.

`resolve` looks names up, `read_content` reads images and texts and locates weights, and `prepare`
adds a manifest. Backbones that a caller has in memory stand in for named ones.
"""

import time
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from bench.contracts.backbone import Backbone
from bench.contracts.dataset import Rows
from bench.contracts.specs import DatasetSpec, trained_on_generated
from bench.discovery.backbones import fact, has_flag
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.errors import AbsentError, UserError
from bench.inputs.class_names import ClassNames
from bench.inputs.data import DataSource, load_classes, load_split
from bench.inputs.prompts import Prompts
from bench.inputs.split import Split
from bench.inputs.subsets import select_subset
from bench.inputs.weights import Weights
from bench.machine.environment import pick_device
from bench.machine.offline import offline_if_set
from bench.running.borrowed import find_candidates, find_fit_split, fit_data, learn_weighting
from bench.running.command import same_options
from bench.running.content import Content, PreparedRun
from bench.running.generated import asks_for_generated, generated_split, generator_config
from bench.running.kinds import KINDS
from bench.running.manifest import prepared_run
from bench.running.parts.data import data_source, find_dataset
from bench.running.parts.decision import backbone_params, check_strategy, find_strategy
from bench.running.parts.declaration import option, passed_to
from bench.running.parts.machine import TF32, find_precision, names_precision, quicker_precisions
from bench.running.parts.measure import find_plan, resolve_views
from bench.running.parts.model import BackboneSource, find_backbone, find_weights
from bench.running.parts.settings import SETTINGS, Names, RunConfig, Values, about
from bench.running.parts.texts import (
    make_prompts,
    null_warning,
    text_score_warning,
    uneven_prompts_warning,
)
from bench.store.folder import find_run

SCORER_TEXT = {
    "denoiser": "is a denoiser",
    "classifier": "is a classifier, which scores images directly",
    "likelihood": "is a likelihood, which returns errors itself",
}


@dataclass(frozen=True)
class Preloaded:
    """What the caller has already, instead of what the settings of a run name."""

    dataset: DatasetSpec | DataSource | None = None
    rows: Rows | None = None  # the images
    loaded: Any = None  # the backbone
    split: Split | None = None  # images that were read before with the same data settings
    surveyed: tuple[str, bool] | None = None
    """Fingerprint of the images, and whether all are ordinary, if another process has read them."""


NOTHING = Preloaded()
# For questions about a backbone alone: its classes are texts to any model, labels to some.
NO_DATASET = DatasetSpec(name="none", target="bench.running:none", classes=("0", "1"))


def resolve(config: RunConfig, dataset: DatasetSpec | DataSource | None = None) -> Names:
    """Look up every name in the settings (UserError); `dataset` replaces the one that they name."""
    if dataset is None:
        dataset = find_dataset(config)
    data = dataset if isinstance(dataset, DataSource) else data_source(config, dataset)
    source = find_backbone(config, data.spec)
    decider = find_strategy(config, source.spec)
    options = passed_to(source.spec, config)
    return Names(
        config=config,
        data=data,
        source=source,
        backbone_parameters=source.spec.resolve_parameters(
            {**backbone_params(config, source.spec, decider.spec), **options}
        ),
        precision=find_precision(config, source.spec),
        decider=decider,
        plan=find_plan(config, source.spec),
        views=None if config.views is None else resolve_views(config.views),
    )


def without_effect(names: Names) -> dict[str, str]:
    """Return the settings that the user changed and that change nothing in this run → why."""
    backbone, reasons = f"Backbone {names.source.name!r}", {}
    for name in names.config.changed():
        declared, why = SETTINGS[name], ""
        if not declared.is_for(names.backbone):
            why = f"is for {declared.scope}. {backbone} {SCORER_TEXT[names.backbone.scorer]}."
        elif declared.ability and not getattr(names.strategy, declared.ability):
            why = f"has no effect with strategy {names.decider.spec.name!r}."
        elif declared.of_classes and names.dataset.items:
            why = (
                f"is about classes, but every item of dataset {names.dataset.name!r} has texts"
                " of its own."
            )
        elif declared.learns is True and not names.backbone.learns:
            why = f"has no effect: {backbone} is not trainable."
        elif declared.learns is False and names.backbone.learns:
            why = f"has no effect: {backbone} learns classes from images and reads no prompts."
        elif name == "seed" and not KINDS[names.backbone.scorer].draws_at_random(names):
            why = "has no effect: nothing in this run is drawn at random."
        if why and name in names.backbone.parameters:
            why += f" The backbone has a parameter of this name: --set {name}=VALUE."
        if why:
            reasons[name] = why
    return reasons


def check_effect(names: Names) -> None:
    """Raise UserError if the user changed a setting that cannot change anything in this run."""
    for name, why in without_effect(names).items():
        raise UserError(f"{option(name)} {why}")
    if (stated := names.stated_risk()) is not None:
        stated.check()


def check_named_runs(config: RunConfig) -> None:
    """Raise UserError if another run that the settings name does not exist."""
    weighting, until = config.weighting, config.until
    learned_from = weighting.source if weighting.name == "learned" else None
    for name in filter(None, (config.candidates_from, until and until.run, learned_from)):
        find_run(name, config.results, exact=True)


@offline_if_set
def read_content(config: RunConfig, at_hand: Preloaded = NOTHING, images: bool = False) -> Content:
    """Read what the settings of a run name, and validate it (UserError); weights are only located.

    If no `images` are needed, a dataset that declares its classes is not read.
    """
    started = time.perf_counter()
    names = resolve(config, at_hand.dataset)
    kind = KINDS[names.backbone.scorer]
    check_effect(names)
    if images:
        check_named_runs(config)
    split = at_hand.split
    if images and split is None:
        split = load_split(names.data, config.split, at_hand.rows)
        split = replace(split, survey=at_hand.surveyed) if at_hand.surveyed else split
    class_names = split.class_names if split else load_classes(names.data)
    generator = _read_generator(names)
    learns_from = None
    if generator is not None:
        trained_on: str | None = trained_on_generated(
            generator.names.source.name, generator.names.source.trained_on
        )
        learns_from = generated_split(str(config.fit_split), generator, names.dataset, class_names)
    elif names.backbone.learns:
        trained_on = fit_data(names, split)
        learns_from = find_fit_split(names, split) if split else None
    else:
        trained_on = names.source.trained_on
    check_strategy(
        names.decider,
        f"backbone {names.source.name!r}",
        items=split.items.shapes[0] if split and split.items else None,
        candidates=config.candidates_from is not None,
        reduction=kind.reduction(names),
        gradients=names.strategy.linearises and has_flag(names.backbone, "can_linearise"),
    )
    shortlist = find_candidates(names, split)
    prompts = _prompts(names, split, class_names)
    warnings = [*_warnings(names, split, prompts), out_of_domain_warning(names, generator)]
    names, weights, absent = _located(names, at_hand.loaded)
    absent = absent or (generator and generator.absent) or None
    weighting, learned = config.weighting, None
    if split and not absent and weighting.name == "learned":
        weighting, learned, gain = learn_weighting(names, weights, split)
        warnings.append(gain)
    sources = [trained_on, shortlist.trained_on if shortlist else None, learned]
    return Content(
        names=names,
        kind=kind,
        class_names=class_names,
        prompts=prompts,
        weights=weights,
        absent=absent,
        trained_on=" + ".join(dict.fromkeys(filter(None, sources))) or None,
        split=split,
        started=started,
        weighting=weighting,
        warnings=tuple(filter(None, warnings)),
        loaded=at_hand.loaded,
        learns_from=learns_from,
        shortlist=shortlist,
    )


def _read_generator(names: Names) -> Content | None:
    """Return the content of the backbone that makes the images to learn from, if any does."""
    if not (names.backbone.learns and asks_for_generated(names.config.fit_split)):
        return None
    return read_content(generator_config(names.config, names.dataset), Preloaded(NO_DATASET))


def _prompts(names: Names, split: Split | None, class_names: ClassNames) -> Prompts:
    config = names.config
    if split and split.items:  # their texts; settings of classes are refused elsewhere
        asked_for = select_subset(split.sample_ids, split.labels, config.limit)
        return split.collect_texts(asked_for)
    return make_prompts(config, names.dataset, names.source, names.decider, class_names.names)


def _located(names: Names, loaded: Any) -> tuple[Names, Weights | None, AbsentError | None]:
    """Return the located weights, or why they are absent, and the names with their precision."""
    config, weights, absent = names.config, None, None
    try:
        weights = find_weights(config, names.source, names.backbone_parameters, loaded)
        named = names.backbone.dtype or names_precision(config)
        if weights and names.backbone.denoises and not named:  # its class or its files say it
            half = fact(names.backbone, Backbone.half_precision, weights)
            names = replace(names, precision=find_precision(config, names.backbone, half))
    except AbsentError as error:
        absent = error
    names.precision.check(config)
    return names, weights, absent


def _warnings(names: Names, split: Split | None, prompts: Prompts) -> list[str | None]:
    return [
        quicker_precisions(names.config.device, names.precision)
        if names.backbone.objects
        else None,
        declared_warning(names, split) if split else None,
        text_score_warning(names.decider, split.items)
        if split and split.items
        else uneven_prompts_warning(names.config, prompts),
        null_warning(names.config.subtract_null, names.backbone, split.items if split else None),
    ]


def prepare(config: RunConfig, at_hand: Preloaded = NOTHING) -> PreparedRun:
    """Read the images of a run and validate it (UserError).

    A stated risk has chosen no parameters yet: see `bench.running.risk.settled`.
    """
    content = read_content(config, at_hand, images=True)
    return prepared_run(content)


def _only_elsewhere(names: Names, source: BackboneSource) -> bool:
    """Return whether a backbone was trained on one dataset, which is not the run's."""
    trained, _, split = (source.trained_on or "").partition("/")
    return bool(split) and not source.spec.learns and trained != names.dataset.name


def out_of_domain_warning(names: Names, generator: Content | None = None) -> str | None:
    """Return a warning if the backbone, or what generates its images, was trained on other data."""
    source = generator.names.source if generator else names.source
    if not _only_elsewhere(names, source):
        return None
    option = "--fit-split generated:NAME" if generator else "--backbone"
    return (
        f"Backbone {source.name!r} was trained only on {source.trained_on}. On other images it may"
        f" do no better than guessing. Choose another one with {option}; `bench list backbones`"
        " shows all."
    )


def declared_warning(names: Names, split: Split) -> str | None:
    """Return a warning if the split has fewer or more images than its dataset declares."""
    spec, count = names.dataset, len(split.sample_ids)
    declared = spec.splits.get(split.split)
    if declared in (None, count):
        return None
    return (
        f"Split {split.split!r} of dataset {spec.name!r} has {count:,} images, but {declared:,} are"
        " declared: results are of another test set. `bench check-data` looks for the reason."
    )


def check_chosen(names: Names) -> None:
    """Raise UserError if no backbone was named, and the default one was trained on other data.

    The message has three commands: zero-shot backbones that score with noise, without noise and
    without weights, of each kind the one that was registered first.
    """
    config = names.config
    if config.backbone is not None or not _only_elsewhere(names, names.source):
        return
    named: dict[tuple[bool, bool], str] = {}
    for spec in load_plugins().backbones.by_name().values():
        if spec.trained_on is None and not spec.takes_folders:
            named.setdefault((bool(spec.weights), spec.one_draw), spec.name)
    slow = pick_device(config.device) == "cpu" and config.limit is None
    commands = [
        same_options(config, *(["--limit", "20"] if slow and not one_draw else []), backbone=name)
        for (_, one_draw), name in sorted(named.items(), key=lambda pair: slow and not pair[0][1])
    ]
    raise UserError(
        f"--backbone was not given, and the default, {names.source.name!r}, was trained only"
        f" on {names.source.trained_on}. `bench list backbones` shows all; for a start:\n  "
        + "\n  ".join(commands)
    )


# Backbone → the settings that it was made from, which enter the identity of a run. An object's
# device and others are read from it for every run, because the user may change them.
_LOADED: WeakKeyDictionary[Any, Values] = WeakKeyDictionary()


def load_named(config: RunConfig) -> Any:
    """Make the backbone that settings name, and remember those of a run with it."""
    device = pick_device(config.device)
    content = read_content(config.model_copy(update={"device": device}), Preloaded(NO_DATASET))
    if content.absent is not None:
        raise content.absent
    backbone = content.kind.make(content).backbone
    named = {"backbone": config.backbone, "weights": config.weights}
    _LOADED[backbone] = {**named, "device": device, "dtype": str(content.names.precision)}
    return backbone


def take_object(thing: Any, **parameters: Any) -> Any:
    """Make a backbone from an object such as a diffusers pipeline, and remember its name."""
    names = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(thing).__mro__}
    specs = (spec for spec in load_plugins().backbones if names.intersection(spec.objects))
    if (spec := next(specs, None)) is None:
        raise UserError(
            f"backbone={type(thing).__name__}(…): expected a diffusers pipeline or a result of"
            " bench.load_backbone(NAME), so that the run can record what scored it."
        )
    backbone = make(spec, thing, **parameters)
    _LOADED[backbone] = {"backbone": spec.name, "weights": backbone.label}
    return backbone


def with_loaded(backbone: Any, settings: Values) -> tuple[Any, Values]:
    """Return the caller's object as a backbone, and `settings` with those it was made from.

    Raises UserError if the settings contradict each other or the object is not a backbone.
    """
    try:
        loaded = _LOADED.get(backbone)
    except TypeError:  # the object does not support weak references
        loaded = None
    if loaded is None:
        backbone = take_object(backbone)
        loaded = _LOADED[backbone]
    fixed = loaded if "device" in loaded else {**loaded, **backbone.settings}
    if settings.get("dtype") == TF32 and fixed["dtype"] == "float32":
        settings = {**settings, "dtype": None, "tf32": True}
    for name in about("network"):  # the precision can be changed after loading
        if SETTINGS[name].identity != "precision" and name not in fixed and settings.get(name):
            raise UserError(f"{name}= needs a backbone's name, not a loaded backbone.")
    for name, value in fixed.items():
        if settings.get(name) not in (None, value):
            raise UserError(
                f"{name}={settings[name]!r}: the backbone was loaded with {name}={value!r}."
            )
    return backbone, {**settings, **fixed}
