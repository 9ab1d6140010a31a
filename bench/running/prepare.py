"""Resolve and validate a run's settings, before anything heavy is loaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.errors import AbsentError, UserError
from bench.inputs.altered import add_files
from bench.inputs.data import DataSource, load_classes, load_split
from bench.inputs.estimand import parse_weighting
from bench.inputs.split import Split
from bench.inputs.weights import Weights, advise_licence, locate
from bench.inputs.weights import resolve as resolve_weights
from bench.machine.offline import offline_if_set
from bench.running.manifest import make_manifest
from bench.running.prepared import Prepared
from bench.running.preparing.others import (
    find_candidates,
    find_fit_split,
    learn_weighting,
    name_fit_split,
)
from bench.running.preparing.risk import has_calibration, stated_risk, with_risk
from bench.running.preparing.sweep import with_sweep
from bench.running.preparing.texts import (
    item_texts,
    make_prompts,
    text_score_warning,
    uneven_prompts_warning,
)
from bench.running.resolve import Resolved, resolve
from bench.running.settings import RunConfig, check_scope

if TYPE_CHECKING:
    import datasets


@offline_if_set
def prepare(
    config: RunConfig,
    dataset: DatasetSpec | DataSource | None = None,
    images: bool = True,
    rows: datasets.Dataset | None = None,
    loaded: Any = None,
    surveyed: tuple[str, bool] | None = None,
    split: Split | None = None,
    samples: Sequence[str] | None = None,
) -> Prepared:
    """Resolve and validate a run.

    `dataset` replaces the one that `config` names. If no `images` are needed, a dataset that
    declares its classes is not read. The images may be in memory (`rows`) or read before with the
    same data settings (`split`); `loaded` is the backbone if the caller has loaded it. `surveyed`
    is the fingerprint of the images, and whether all of them are ordinary, if another process has
    read them. `samples` are the ids to score; None for those that the settings select.

    Raises UserError if something in the settings, the data or the texts is invalid or does not fit.
    """
    started = time.perf_counter()
    resolved, chosen = resolve(config, dataset), config.backbone is not None
    check_scope(resolved.config, resolved.backbone, resolved.backbone_name)
    stated = stated_risk(resolved)
    config, data = resolved.config, resolved.data
    if images and split is None:
        split = load_split(data, config.split, rows)
        split = split if surveyed is None else replace(split, survey=surveyed)
    named = split.class_names if split else load_classes(data)
    resolved = name_fit_split(resolved, split)
    learns_from = find_fit_split(resolved, split) if split else None
    shortlist = find_candidates(resolved, split)
    if shortlist is not None and shortlist.trained_on is not None:
        resolved = _also_trained_on(resolved, shortlist.trained_on)
    prompts = item_texts(resolved, split) if split and split.items else None
    prompts = prompts or make_prompts(resolved, named.names)
    absent: tuple[str, ...] = ()
    try:
        weights = find_weights(resolved, loaded)
    except AbsentError as error:
        weights, absent = None, (str(error),)
    weighting = parse_weighting(config.weighting)
    warnings = [
        out_of_domain_warning(resolved, chosen, len(named.names)),
        text_score_warning(resolved, split)
        if split and split.items
        else uneven_prompts_warning(config, prompts),
    ]
    if split and not absent and weighting.name == "learned":
        checkpoint = weights.fingerprint if weights else None
        weighting, data_learned, gain = learn_weighting(
            weighting, config, resolved.backbone.name, checkpoint, split.fingerprint
        )
        warnings.append(gain)
        resolved = _also_trained_on(resolved, data_learned)
    prepared = Prepared(
        **vars(resolved),
        named=named,
        prompts=prompts,
        weights=weights,
        split=split,
        absent=absent,
        started=started,
        weighting=weighting,
        warnings=tuple(filter(None, warnings)),
        loaded=loaded,
        learns_from=learns_from,
        shortlist=shortlist,
    )
    if split is None or absent:
        return prepared

    prepared = replace(prepared, described=make_manifest(prepared, sample_ids=samples))
    if stated is None:
        return prepared
    if not has_calibration(stated, prepared.manifest):
        return with_sweep(prepared, stated, samples)
    prepared, calibrated = with_risk(prepared, stated, prepared.manifest)
    return replace(prepared, described=make_manifest(prepared, calibrated, sample_ids=samples))


def prepare_again(
    prepared: Prepared, config: RunConfig, samples: Sequence[str] | None = None
) -> Prepared:
    """Prepare another run with the images of `prepared`, and its backbone if that is loaded."""
    loaded, split = prepared.loaded, prepared.split
    return prepare(config, prepared.data, loaded=loaded, split=split, samples=samples)


def _also_trained_on(resolved: Resolved, data: str) -> Resolved:
    before = resolved.trained_on
    return replace(resolved, trained_on=data if before in (None, data) else f"{before} + {data}")


def out_of_domain_warning(resolved: Resolved, chosen: bool, n_classes: int) -> str | None:
    """Return a warning if the backbone, `chosen` or default, was trained only on other data."""
    trained, _, split = (resolved.trained_on or "").partition("/")
    if not split or resolved.backbone.learns or trained == resolved.dataset.name:
        return None
    why = "" if chosen else ", and is used because none was named"
    return (
        f"Backbone {resolved.backbone_name!r} was trained only on {resolved.trained_on}{why}."
        f" On other images it may do no better than guessing, whose accuracy is"
        f" {1 / n_classes:.1%} with {n_classes} classes. Choose another one with --backbone;"
        " `bench list backbones` shows all."
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
    try:
        located = resolve_weights(weights, own or spec.revision)
        return add_files(located, resolved.source.loras, resolved.source.file)
    except AbsentError as error:
        if not spec.gated or resolved.source.weights:
            raise
        raise AbsentError(f"{error}\n{advise_licence(weights, spec.licence)}") from None
