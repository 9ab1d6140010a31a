"""Resolve and validate a run's settings, before anything heavy is loaded."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
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
from bench.inputs.weights import Weights, add_files, locate
from bench.inputs.weights import resolve as resolve_weights
from bench.machine.environment import pick_device
from bench.machine.hub import advise_licence
from bench.machine.offline import offline_if_set
from bench.running.borrowed import find_candidates, find_fit_split, learn_weighting, name_fit_split
from bench.running.command import same_options
from bench.running.decider import backbone_params, check_strategy, find_strategy
from bench.running.finders import (
    data_source,
    find_backbone,
    find_dataset,
    find_plan,
    passed_to,
    resolve_views,
)
from bench.running.kinds.denoiser import DenoiserKind
from bench.running.kinds.direct import ClassifierKind, LikelihoodKind
from bench.running.manifest import make_manifest, other_precision_note
from bench.running.parts.precision import depends_on_class, find_precision, quicker_precisions
from bench.running.question import PreparedRun, Resolved, RunQuestion, ScorerKind, Swept
from bench.running.risk import StatedRisk
from bench.running.settings import SCORER_TEXT, SETTINGS, RunConfig, changed
from bench.running.settings.declaration import option
from bench.running.texts import make_prompts, text_score_warning, uneven_prompts_warning
from bench.store.documents import Sweep
from bench.store.folder import find_run, shard_folder
from bench.store.identity import CalibratedOn

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


def resolve(config: RunConfig, dataset: DatasetSpec | DataSource | None = None) -> Resolved:
    """Resolve every name in the settings; `dataset` replaces the one that they name.

    Raises UserError if a name is unknown, or settings contradict each other or the backbone.
    """
    if dataset is None:
        dataset = find_dataset(config)
    data = dataset if isinstance(dataset, DataSource) else data_source(config, dataset)
    source = find_backbone(config, data.spec)
    decider = find_strategy(config, source.spec)
    options = passed_to(source.spec, config)
    return Resolved(
        config=config,
        data=data,
        source=source,
        kind=KINDS[source.spec.scorer],
        backbone_parameters=source.spec.resolve_parameters(
            {**backbone_params(config, source.spec, decider.spec), **options}
        ),
        trained_on=source.trained_on,
        precision=find_precision(config, source.spec),
        template=config.template or (None if config.prompts else source.spec.template),
        decider=decider,
        risk=None
        if config.risk is None
        else StatedRisk(config.risk, decider, config.params, Path(config.results)),
        plan=find_plan(config, source.spec),
        views=None if config.views is None else resolve_views(config.views),
    )


def without_effect(resolved: Resolved) -> dict[str, str]:
    """Return the settings that the user changed and that change nothing in this run → why."""
    backbone, reasons = f"Backbone {resolved.backbone_name!r}", {}
    for name in changed(resolved.config):
        declared, why = SETTINGS[name], ""
        if resolved.backbone.scorer not in declared.scorers:
            why = f"is for {declared.scope}. {backbone} {SCORER_TEXT[resolved.backbone.scorer]}."
        elif declared.ability and not getattr(resolved.strategy, declared.ability):
            why = f"has no effect with strategy {resolved.decider.spec.name!r}."
        elif declared.of_classes and resolved.dataset.items:
            why = (
                f"is about classes, but every item of dataset {resolved.dataset.name!r} has texts"
                " of its own."
            )
        elif declared.learns is True and not resolved.backbone.learns:
            why = f"has no effect: {backbone} is not trainable."
        elif declared.learns is False and resolved.backbone.learns:
            why = f"has no effect: {backbone} learns classes from images and reads no prompts."
        elif name == "seed" and not resolved.kind.draws_at_random(resolved):
            why = "has no effect: nothing in this run is drawn at random."
        if why and name in resolved.backbone.parameters:
            why += f" The backbone has a parameter of this name: --set {name}=VALUE."
        if why:
            reasons[name] = why
    return reasons


def check_effect(resolved: Resolved) -> None:
    """Raise UserError if the user changed a setting that cannot change anything in this run."""
    for name, why in without_effect(resolved).items():
        raise UserError(f"{option(name)} {why}")
    if resolved.risk is not None:
        resolved.risk.check()


def check_named_runs(config: RunConfig) -> None:
    """Raise UserError if another run that the settings name does not exist."""
    weighting, until = config.weighting, config.until
    learned_from = weighting.source if weighting.name == "learned" else None
    for name in filter(None, (config.candidates_from, until and until.run, learned_from)):
        find_run(name, config.results, exact=True)


@offline_if_set
def ask(config: RunConfig, at_hand: AtHand = NOTHING, images: bool = False) -> RunQuestion:
    """Resolve and validate a run as far as that needs no manifest.

    If no `images` are needed, a dataset that declares its classes is not read. Raises UserError if
    something in the settings, the data or the texts is invalid or does not fit.
    """
    started = time.perf_counter()
    resolved = resolve(config, at_hand.dataset)
    split, surveyed, loaded = at_hand.split, at_hand.surveyed, at_hand.loaded
    check_effect(resolved)
    if images:
        check_named_runs(config)
    if images and split is None:
        split = load_split(resolved.data, config.split, at_hand.rows)
        split = split if surveyed is None else replace(split, survey=surveyed)
    named = split.class_names if split else load_classes(resolved.data)
    warnings = [out_of_domain_warning(resolved)]
    if resolved.backbone.objects:
        warnings.append(quicker_precisions(config.device, resolved.precision))
    if split is not None:
        warnings.append(declared_warning(resolved, split))
    resolved = name_fit_split(resolved, split)
    check_strategy(
        resolved.decider,
        f"backbone {resolved.backbone_name!r}",
        items=split.items.shapes[0] if split and split.items else None,
        candidates=config.candidates_from is not None,
        reduction=resolved.kind.reduction(resolved),
        gradients=resolved.strategy.linearises and has_flag(resolved.backbone, "can_linearise"),
    )
    learns_from = find_fit_split(resolved, split) if split else None
    shortlist = find_candidates(resolved, split)
    if shortlist is not None and shortlist.trained_on is not None:
        resolved = _also_trained_on(resolved, shortlist.trained_on)
    if split and split.items:  # their texts; settings of classes are refused elsewhere
        asked_for = select_subset(split.sample_ids, split.labels, config.limit)
        prompts = split.collect_texts(asked_for)
        warnings.append(text_score_warning(resolved, split.items))
    else:
        prompts = make_prompts(resolved, named.names)
        warnings.append(uneven_prompts_warning(config, prompts))
    weights, absent = None, None
    try:
        weights = find_weights(resolved, loaded)
        resolved = _with_half(resolved, weights)
    except AbsentError as error:
        absent = error
    resolved.precision.check(config)
    weighting = config.weighting
    if split and not absent and weighting.name == "learned":
        checkpoint = weights.fingerprint if weights else None
        weighting, data_learned, gain = learn_weighting(
            weighting, config, resolved.backbone.name, checkpoint, split.fingerprint
        )
        warnings.append(gain)
        resolved = _also_trained_on(resolved, data_learned)
    return RunQuestion(
        **vars(resolved),
        named=named,
        prompts=prompts,
        weights=weights,
        absent=absent,
        split=split,
        started=started,
        weighting=weighting,
        warnings=tuple(filter(None, warnings)),
        loaded=loaded,
        learns_from=learns_from,
        shortlist=shortlist,
    )


def _with_half(resolved: Resolved, weights: Weights | None) -> Resolved:
    """Return a run in the half precision that the class or the files of its weights name.

    The class is asked only if neither the user nor the spec of a denoiser names a precision.
    """
    config, spec = resolved.config, resolved.backbone
    if not weights or not depends_on_class(config, spec):
        return resolved
    half = fact(spec, Backbone.half_precision, weights)
    return replace(resolved, precision=find_precision(config, spec, half))


def prepare(config: RunConfig, at_hand: AtHand = NOTHING) -> PreparedRun:
    """Read the images of a run and validate it (UserError).

    A stated risk has chosen no parameters yet: see `bench.running.risk_sweep.settled`.
    """
    return prepared_run(ask(config, at_hand, images=True))


def prepared_run(
    question: RunQuestion,
    samples: Sequence[str] | None = None,
    calibrated: CalibratedOn | None = None,
    sweep: Sweep | None = None,
    swept: Swept | None = None,
) -> PreparedRun:
    """Return the run of a question whose images were read, with a new manifest.

    `samples` are the ids to score; None for those that the settings select. `calibrated` and
    `sweep` are what chose the strategy of a stated risk; `swept` are decided images to copy.
    """
    config, split = question.config, question.split
    if question.absent is not None:
        raise question.absent
    assert split is not None, "asked without images"
    manifest = make_manifest(question, split, samples, calibrated, sweep)
    folder = Path(config.results, manifest.run_id)
    if (shard := config.shard) is not None:
        folder = shard_folder(folder, shard.index, shard.count)
    stored = {"fresh": config.fresh, "save_errors": config.save_errors, "folder": folder}
    warnings = (*question.warnings, *filter(None, [other_precision_note(question, manifest)]))
    more = {"manifest": manifest, "swept": swept, "warnings": warnings}
    return PreparedRun(**vars(question) | stored | more)


def prepare_again(run: PreparedRun, config: RunConfig) -> PreparedRun:
    """Prepare another run with the images of `run`, and its backbone if that is loaded."""
    return prepare(config, AtHand(run.data, loaded=run.loaded, split=run.split))


def _also_trained_on(resolved: Resolved, data: str) -> Resolved:
    before = resolved.trained_on
    return replace(resolved, trained_on=data if before in (None, data) else f"{before} + {data}")


def _only_elsewhere(resolved: Resolved) -> bool:
    """Return whether the backbone was trained on one dataset, which is not the run's."""
    trained, _, split = (resolved.trained_on or "").partition("/")
    return bool(split) and not resolved.backbone.learns and trained != resolved.dataset.name


def out_of_domain_warning(resolved: Resolved) -> str | None:
    """Return a warning if the backbone was trained only on other data."""
    if not _only_elsewhere(resolved):
        return None
    return (
        f"Backbone {resolved.backbone_name!r} was trained only on {resolved.trained_on}."
        " On other images it may do no better than guessing. Choose another one with --backbone;"
        " `bench list backbones` shows all."
    )


def declared_warning(resolved: Resolved, split: Split) -> str | None:
    """Return a warning if the split has fewer or more images than its dataset declares."""
    spec, count = resolved.dataset, len(split.sample_ids)
    declared = spec.splits.get(split.split)
    if declared in (None, count):
        return None
    return (
        f"Split {split.split!r} of dataset {spec.name!r} has {count:,} images, but {declared:,} are"
        " declared: results are of another test set. `bench check-data` looks for the reason."
    )


def check_chosen(resolved: Resolved) -> None:
    """Raise UserError if no backbone was named, and the default one was trained on other data.

    The message has three commands: zero-shot backbones that score with noise, without noise and
    without weights, of each kind the one that was registered first.
    """
    config = resolved.config
    if config.backbone is not None or not _only_elsewhere(resolved):
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
        f"--backbone was not given, and the default, {resolved.backbone_name!r}, was trained only"
        f" on {resolved.trained_on}. `bench list backbones` shows all; for a start:\n  "
        + "\n  ".join(commands)
    )


def find_weights(resolved: Resolved, loaded: Any = None) -> Weights | None:
    """Locate the backbone's weights without reading them; None if it needs none.

    Weights of an object in memory are read. Raises AbsentError if they are not on this machine and
    cannot be downloaded.
    """
    if resolved.backbone.objects:
        content: Weights | None = None if loaded is None else loaded.content()
        return content
    weights = resolved.source.weights or resolved.backbone.weights
    for name, weights_of_value in resolved.backbone.weights_by.items():
        weights = weights or weights_of_value.get(str(resolved.backbone_parameters[name]))
    own, spec = resolved.config.revision, resolved.backbone
    if own is not None and (weights is None or Path(locate(weights)).is_absolute()):
        raise UserError(
            f"--revision {own} is of weights on the Hub, but these are on this machine."
        )
    if weights is None:
        return None
    with naming_licence(resolved):
        located = resolve_weights(weights, own or spec.revision)
        return add_files(located, resolved.source.loras, resolved.source.file)


@contextmanager
def naming_licence(resolved: Resolved) -> Iterator[None]:
    """Say where the licence of a gated backbone is accepted, if its own weights are absent."""
    spec = resolved.backbone
    try:
        yield
    except AbsentError as error:
        page = advise_licence(str(spec.weights))
        if not spec.gated or resolved.source.weights or page in str(error):
            raise
        raise AbsentError(f"{error}\n{advise_licence(str(spec.weights), spec.licence)}") from None
