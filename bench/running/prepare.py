"""`prepare`: from settings to all that a run needs and is, checked, with nothing heavy loaded."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import Sample
from bench.contracts.decision import Engine
from bench.contracts.specs import DatasetSpec
from bench.engine.asking import CheckedStrategy
from bench.errors import AbsentError, BenchWarning, UserError
from bench.inputs.class_names import ClassNames
from bench.inputs.controls import TEXT_ONLY, blinded
from bench.inputs.data import load_classes, load_split
from bench.inputs.estimand import Weighting, parse_weighting
from bench.inputs.fitting import FitSplit
from bench.inputs.prompts import Prompts
from bench.inputs.split import Split
from bench.inputs.subsets import parse_shard
from bench.inputs.weights import Weights, gate
from bench.inputs.weights import resolve as resolve_weights
from bench.machine.offline import go_offline
from bench.running.candidates import Shortlist, find_candidates
from bench.running.checks import check, check_scorer
from bench.running.engines import open_engine
from bench.running.fitting import find_fit_split, name_fit_split
from bench.running.items import warn_of_items as _only_texts
from bench.running.learned import learn_weighting
from bench.running.manifest import make_manifest
from bench.running.precision import check_precision
from bench.running.resolve import Resolved, resolve
from bench.running.risk import stated_risk, with_risk
from bench.running.settings import RunConfig
from bench.running.texts import item_texts, make_prompts, uneven_counts
from bench.store.documents import Manifest
from bench.store.identity import CalibratedOn
from bench.store.shards import shard_folder

if TYPE_CHECKING:
    import datasets

    from bench.running.engines import CheckedBackbone


@dataclass(frozen=True)
class Prepared:
    """A run, resolved and checked, before anything heavy is loaded. `execute` takes it.

    Attributes:
        resolved: its names and settings.
        named: the classes in label order, in words and as the data spells them.
        prompts: its prompts.
        weights: where they are; None where the backbone needs none, or they are absent.
        split: the images; None where only classes and prompts were asked for.
        described: what the run is; None without the images or the weights.
        absent: why it cannot be executed on this machine as it is; empty where it can.
        started: when preparing began, on `time.perf_counter`'s clock.
        weighting: how much a level counts; what is learned has its weights.
        warnings: what the user should know before believing the result.
        loaded: the backbone itself, where the caller has loaded it.
        shortlist: the candidates of each image; None: all classes are scored.
        learns_from: the images that the backbone learns from; None: it does not, or there are none.
    """

    resolved: Resolved
    named: ClassNames
    prompts: Prompts
    weights: Weights | None
    split: Split | None
    described: Manifest | None
    absent: tuple[str, ...]
    started: float
    weighting: Weighting
    warnings: tuple[str, ...] = ()
    loaded: Any = None
    learns_from: FitSplit | None = None
    shortlist: Shortlist | None = None

    timed = True  # its records say how long the model took

    @property
    def config(self) -> RunConfig:
        """The settings."""
        return self.resolved.config

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in words, in label order."""
        return self.named.names

    @property
    def strategy(self) -> CheckedStrategy:
        """The strategy, made from its parameters."""
        return self.resolved.strategy

    @property
    def fresh(self) -> bool:
        """Whether to start over."""
        return self.config.fresh

    @property
    def save_errors(self) -> bool:
        """Whether to keep the error of every cell."""
        return self.config.save_errors

    @property
    def manifest(self) -> Manifest:
        """What the run is.

        Raises:
            UserError: it was prepared without its images, or its weights are absent.
        """
        if self.described is None:
            raise UserError(self.absent[0] if self.absent else "Prepared without images.")
        return self.described

    @property
    def folder(self) -> Path:
        """Where the run is stored."""
        whole = Path(self.config.results, self.manifest.run_id)
        if self.config.shard is None:
            return whole
        shard = parse_shard(self.config.shard)
        return shard_folder(whole, shard.index, shard.count)

    @property
    def sample_ids(self) -> list[str]:
        """The images asked for."""
        return self.manifest.samples

    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield the images with these ids, one at a time; no id is asked for before its turn."""
        assert self.split is not None, "prepared without images"
        split, control = self.split, self.config.control
        if control is None or control == TEXT_ONLY:
            samples = split.samples(sample_ids, self.prompts)
        else:
            samples = blinded(split, sample_ids, self.prompts, control)
        if (chosen := self.shortlist) is None:
            return samples
        return (replace(s, candidates=chosen.classes[s.sample_id]) for s in samples)

    def check(self) -> None:
        """Refuse what only the backbone's class can tell; imports it, and reads no weights."""
        check(self)

    def open_engine(self, backbone: CheckedBackbone | None = None) -> Engine:
        """Load the backbone, unless one is given, and return the engine that fits it."""
        engine = open_engine(self, backbone)
        if self.resolved.checks_dtype and (said := check_precision(self, engine)):
            warnings.warn(said, BenchWarning, stacklevel=2)
        return engine


def prepare(
    config: RunConfig,
    dataset: DatasetSpec | None = None,
    images: bool = True,
    rows: datasets.Dataset | None = None,
    loaded: Any = None,
    surveyed: tuple[str, bool] | None = None,
    split: Split | None = None,
) -> Prepared:
    """Resolve and check everything that `config` says.

    Args:
        config: the settings.
        dataset: instead of the registered one that `config` names.
        images: whether the images are wanted; without them, a dataset that declares its classes
            is not loaded.
        rows: the images, where they are in memory already.
        loaded: the backbone that `config` names, where the caller has loaded it.
        surveyed: the fingerprint of the images and whether all are ordinary, where another process
            has read them all; None: this one does.
        split: the images, where the caller has read them with the same settings of the data.

    Raises:
        UserError: something does not work or fit.
    """
    started = time.perf_counter()
    if config.offline:
        go_offline()
    resolved, chosen = resolve(config, dataset), config.backbone is not None
    check_scorer(resolved)
    stated = stated_risk(resolved)
    config, spec = resolved.config, resolved.dataset
    if images and split is None:
        split = load_split(spec, config.split, config.data_dir, resolved.data, rows)
        split = split if surveyed is None else replace(split, known=surveyed)
    named = split.named if split else load_classes(spec, config.data_dir, resolved.data)
    resolved = name_fit_split(resolved, split)
    learns_from = find_fit_split(resolved, split) if split else None
    shortlist = find_candidates(resolved, split)
    if shortlist is not None and shortlist.trained_on is not None:
        resolved = _also_trained_on(resolved, shortlist.trained_on)
    prompts = item_texts(resolved, split) if split and split.items else None
    prompts = prompts or make_prompts(resolved, named.names)
    absent: tuple[str, ...] = ()
    try:
        weights = find_weights(resolved)
    except AbsentError as error:
        weights, absent = None, (str(error),)
    manifest, weighting = None, parse_weighting(config.weighting)
    said = _far_from_training(resolved, chosen, len(named.names))
    said += (
        _only_texts(resolved, split) if split and split.items else uneven_counts(config, prompts)
    )
    if split and not absent:
        if weighting.name == "learned":
            learned = learn_weighting(
                weighting,
                config,
                resolved.backbone.name,
                weights.fingerprint if weights else None,
                split.fingerprint,
            )
            said.append(learned.said)
            weighting = learned.weighting
            resolved = _also_trained_on(resolved, learned.trained_on)
        candidates = shortlist.source if shortlist else None

        def described(of: Resolved, calibrated: CalibratedOn | None = None) -> Manifest:
            return make_manifest(
                of, split, prompts, weights, weighting, learns_from, candidates, calibrated
            )

        manifest = described(resolved)
        if stated is not None:
            resolved, calibrated = with_risk(resolved, stated, manifest)
            manifest = described(resolved, calibrated)
    return Prepared(
        resolved,
        named,
        prompts,
        weights,
        split,
        manifest,
        absent,
        started,
        weighting,
        tuple(said),
        loaded,
        learns_from,
        shortlist,
    )


def _also_trained_on(resolved: Resolved, data: str) -> Resolved:
    known = resolved.trained_on
    return replace(resolved, trained_on=data if known in (None, data) else f"{known} + {data}")


def _far_from_training(resolved: Resolved, chosen: bool, n_classes: int) -> list[str]:
    """Say so where a backbone that was trained on one dataset is used on another."""
    trained, _, split = (resolved.trained_on or "").partition("/")
    if not split or resolved.backbone.learns or trained == resolved.dataset.name:
        return []
    why = "" if chosen else ", and is used since no other was named"
    return [
        f"Backbone {resolved.backbone_name!r} was trained on {resolved.trained_on} alone{why}."
        f" On other images it may do no better than guessing, which is right for"
        f" {1 / n_classes:.1%} of {n_classes} classes. --backbone names another one;"
        " `bench list backbones` shows all."
    ]


def find_weights(resolved: Resolved) -> Weights | None:
    """Return the backbone's weights, located but not read; None where it needs none.

    Raises:
        AbsentError: they are not on this machine.
        UserError: they cannot be what is meant.
    """
    weights = resolved.config.weights or resolved.backbone.weights
    for name, known in resolved.backbone.weights_by.items():
        weights = weights or known.get(str(resolved.backbone_parameters[name]))
    if weights is None:
        return None
    revision, spec = resolved.config.revision or resolved.backbone.revision, resolved.backbone
    try:
        return resolve_weights(weights, revision)
    except AbsentError as error:
        if not spec.gated or resolved.config.weights:
            raise
        raise AbsentError(f"{error}\n{gate(weights, spec.licence)}") from None
