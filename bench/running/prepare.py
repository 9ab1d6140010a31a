"""Resolve and validate a run's settings, before anything heavy is loaded."""

import time
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.contracts.backbone import Backbone
from bench.contracts.dataset import Rows
from bench.contracts.specs import DatasetSpec, Scorer
from bench.discovery.backbones import fact, has_flag
from bench.discovery.loading import load_plugins
from bench.errors import AbsentError, UserError
from bench.inputs.data import DataSource, load_classes, load_split
from bench.inputs.split import Split
from bench.inputs.subsets import select_subset
from bench.machine.environment import pick_device
from bench.machine.offline import offline_if_set
from bench.running.borrowed import find_candidates, find_fit_split, fit_data, learn_weighting
from bench.running.command import same_options
from bench.running.kinds.denoiser import DenoiserKind
from bench.running.kinds.direct import ClassifierKind, LikelihoodKind
from bench.running.manifest import prepared_run
from bench.running.parts.data import data_source, find_dataset
from bench.running.parts.decision import backbone_params, check_strategy, find_strategy
from bench.running.parts.measure import find_plan, resolve_views
from bench.running.parts.model import find_backbone, find_weights
from bench.running.parts.names import Names
from bench.running.parts.precision import depends_on_class, find_precision, quicker_precisions
from bench.running.parts.texts import make_prompts, text_score_warning, uneven_prompts_warning
from bench.running.question import Content, PreparedRun, ScorerKind
from bench.running.risk import stated_risk
from bench.running.settings import SCORER_TEXT, SETTINGS, RunConfig, changed, passed_to
from bench.running.settings.declaration import option
from bench.store.folder import find_run

KINDS: Final[dict[Scorer, ScorerKind[Any]]] = {
    "denoiser": DenoiserKind(),
    "classifier": ClassifierKind(),
    "likelihood": LikelihoodKind(),
}


@dataclass(frozen=True)
class AtHand:
    """What the caller has already, instead of what the settings of a run name."""

    dataset: DatasetSpec | DataSource | None = None
    rows: Rows | None = None  # the images
    loaded: Any = None  # the backbone
    split: Split | None = None  # images that were read before with the same data settings
    surveyed: tuple[str, bool] | None = None
    """Fingerprint of the images, and whether all are ordinary, if another process has read them."""


NOTHING = AtHand()
# For questions about a backbone alone: its classes are texts to any model, labels to some.
NO_DATASET = DatasetSpec(name="none", target="bench.running:none", classes=("0", "1"))


def resolve(config: RunConfig, dataset: DatasetSpec | DataSource | None = None) -> Names:
    """Resolve every name in the settings; `dataset` replaces the one that they name.

    Raises UserError if a name is unknown, or settings contradict each other or the backbone.
    """
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
        one_draw=KINDS[source.spec.scorer].one_draw,
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
    backbone, reasons = f"Backbone {names.backbone_name!r}", {}
    for name in changed(names.config):
        declared, why = SETTINGS[name], ""
        if names.backbone.scorer not in declared.scorers:
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
    if (stated := stated_risk(names)) is not None:
        stated.check()


def check_named_runs(config: RunConfig) -> None:
    """Raise UserError if another run that the settings name does not exist."""
    weighting, until = config.weighting, config.until
    learned_from = weighting.source if weighting.name == "learned" else None
    for name in filter(None, (config.candidates_from, until and until.run, learned_from)):
        find_run(name, config.results, exact=True)


@offline_if_set
def ask(config: RunConfig, at_hand: AtHand = NOTHING, images: bool = False) -> Content:
    """Resolve and validate a run as far as that needs no manifest.

    If no `images` are needed, a dataset that declares its classes is not read. Raises UserError if
    something in the settings, the data or the texts is invalid or does not fit.
    """
    started = time.perf_counter()
    names = resolve(config, at_hand.dataset)
    kind, split, learned = KINDS[names.backbone.scorer], at_hand.split, None
    check_effect(names)
    if images:
        check_named_runs(config)
    if images and split is None:
        split = load_split(names.data, config.split, at_hand.rows)
        split = replace(split, survey=at_hand.surveyed) if at_hand.surveyed else split
    named = split.class_names if split else load_classes(names.data)
    trained_on = fit_data(names, split) if names.backbone.learns else names.source.trained_on
    warnings = [out_of_domain_warning(names)]
    if names.backbone.objects:
        warnings.append(quicker_precisions(config.device, names.precision))
    if split is not None:
        warnings.append(declared_warning(names, split))
    check_strategy(
        names.decider,
        f"backbone {names.backbone_name!r}",
        items=split.items.shapes[0] if split and split.items else None,
        candidates=config.candidates_from is not None,
        reduction=kind.reduction(names),
        gradients=names.strategy.linearises and has_flag(names.backbone, "can_linearise"),
    )
    learns_from = find_fit_split(names, split) if split else None
    shortlist = find_candidates(names, split)
    if split and split.items:  # their texts; settings of classes are refused elsewhere
        asked_for = select_subset(split.sample_ids, split.labels, config.limit)
        prompts = split.collect_texts(asked_for)
        warnings.append(text_score_warning(names.decider, split.items))
    else:
        prompts = make_prompts(config, names.dataset, names.source, names.decider, named.names)
        warnings.append(uneven_prompts_warning(config, prompts))
    weights, absent = None, None
    try:
        weights = find_weights(config, names.source, names.backbone_parameters, at_hand.loaded)
        if weights and depends_on_class(config, names.backbone):
            half = fact(names.backbone, Backbone.half_precision, weights)
            names = replace(names, precision=find_precision(config, names.backbone, half))
    except AbsentError as error:
        absent = error
    names.precision.check(config)
    weighting = config.weighting
    if split and not absent and weighting.name == "learned":
        checkpoint = weights.fingerprint if weights else None
        weighting, learned, gain = learn_weighting(
            weighting, config, names.backbone.name, checkpoint, split.fingerprint
        )
        warnings.append(gain)
    sources = [trained_on, shortlist.trained_on if shortlist else None, learned]
    return Content(
        names=names,
        kind=kind,
        named=named,
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


def prepare(config: RunConfig, at_hand: AtHand = NOTHING) -> PreparedRun:
    """Read the images of a run and validate it (UserError).

    A stated risk has chosen no parameters yet: see `bench.running.risk_sweep.settled`.
    """
    return prepared_run(ask(config, at_hand, images=True))


def prepare_again(run: PreparedRun, config: RunConfig) -> PreparedRun:
    """Prepare another run with the images of `run`, and its backbone if that is loaded."""
    return prepare(config, AtHand(run.names.data, loaded=run.content.loaded, split=run.split))


def _only_elsewhere(names: Names) -> bool:
    """Return whether the backbone was trained on one dataset, which is not the run's."""
    trained, _, split = (names.source.trained_on or "").partition("/")
    return bool(split) and not names.backbone.learns and trained != names.dataset.name


def out_of_domain_warning(names: Names) -> str | None:
    """Return a warning if the backbone was trained only on other data."""
    if not _only_elsewhere(names):
        return None
    return (
        f"Backbone {names.backbone_name!r} was trained only on {names.source.trained_on}."
        " On other images it may do no better than guessing. Choose another one with --backbone;"
        " `bench list backbones` shows all."
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
    if config.backbone is not None or not _only_elsewhere(names):
        return
    named: dict[tuple[bool, bool], str] = {}
    for spec in load_plugins().backbones.by_name().values():
        if spec.trained_on is None and not spec.takes_folders:
            named.setdefault((bool(spec.weights), KINDS[spec.scorer].one_draw), spec.name)
    slow = pick_device(config.device) == "cpu" and config.limit is None
    commands = [
        same_options(config, *(["--limit", "20"] if slow and not one_draw else []), backbone=name)
        for (_, one_draw), name in sorted(named.items(), key=lambda pair: slow and not pair[0][1])
    ]
    raise UserError(
        f"--backbone was not given, and the default, {names.backbone_name!r}, was trained only"
        f" on {names.source.trained_on}. `bench list backbones` shows all; for a start:\n  "
        + "\n  ".join(commands)
    )
