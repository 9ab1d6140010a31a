"""`prepare`: from settings to all that a run needs and is, checked, with nothing heavy loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import Sample
from bench.contracts.decision import Engine
from bench.contracts.specs import DatasetSpec
from bench.engine.asking import CheckedStrategy
from bench.errors import AbsentError, UserError
from bench.inputs.class_names import ClassNames
from bench.inputs.data import Split, load_classes, load_split
from bench.inputs.prompts import Prompts, from_file, from_template
from bench.inputs.weights import Weights
from bench.inputs.weights import resolve as resolve_weights
from bench.running.checks import check
from bench.running.engines import open_engine
from bench.running.manifest import make_manifest
from bench.running.resolve import Resolved, resolve
from bench.running.settings import RunConfig
from bench.store.documents import Manifest

if TYPE_CHECKING:
    import datasets

    from bench.engine.classifying import CheckedClassifier
    from bench.engine.denoiser import CheckedDenoiser


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
        warnings: what the user should know before believing the result.
        loaded: the backbone itself, where the caller has loaded it.
    """

    resolved: Resolved
    named: ClassNames
    prompts: Prompts
    weights: Weights | None
    split: Split | None
    described: Manifest | None
    absent: tuple[str, ...]
    started: float
    warnings: tuple[str, ...] = ()
    loaded: Any = None

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
        return Path(self.config.results, self.manifest.run_id)

    @property
    def sample_ids(self) -> list[str]:
        """The images asked for."""
        return self.manifest.samples

    def samples(self, sample_ids: Sequence[str]) -> Iterator[Sample]:
        """Yield the images with these ids, one at a time."""
        assert self.split is not None, "prepared without images"
        return self.split.samples(sample_ids)

    def check(self) -> None:
        """Refuse what only the backbone's class can tell; imports it, and reads no weights."""
        check(self)

    def open_engine(self, backbone: CheckedDenoiser | CheckedClassifier | None = None) -> Engine:
        """Load the backbone, unless one is given, and return the engine that fits it."""
        return open_engine(self, backbone)


def prepare(
    config: RunConfig,
    dataset: DatasetSpec | None = None,
    images: bool = True,
    rows: datasets.Dataset | None = None,
    loaded: Any = None,
) -> Prepared:
    """Resolve and check everything that `config` says.

    Args:
        config: the settings.
        dataset: instead of the registered one that `config` names.
        images: whether the images are wanted; without them, a dataset that declares its classes
            is not loaded.
        rows: the images, where they are in memory already.
        loaded: the backbone that `config` names, where the caller has loaded it.

    Raises:
        UserError: something does not work or fit.
    """
    started = time.perf_counter()
    resolved, chosen = resolve(config, dataset), config.backbone is not None
    config, spec = resolved.config, resolved.dataset
    split = None
    if images:
        split = load_split(spec, config.split, config.data_dir, resolved.data, rows)
    named = split.named if split else load_classes(spec, config.data_dir, resolved.data)
    prompts = make_prompts(resolved, named.names)
    absent: tuple[str, ...] = ()
    try:
        weights = find_weights(resolved)
    except AbsentError as error:
        weights, absent = None, (str(error),)
    manifest = None
    if split and not absent:
        manifest = make_manifest(resolved, split, prompts, weights)
    warnings = _far_from_training(resolved, chosen, len(named.names))
    return Prepared(
        *(resolved, named, prompts, weights, split, manifest, absent, started, warnings, loaded)
    )


def _far_from_training(resolved: Resolved, chosen: bool, n_classes: int) -> tuple[str, ...]:
    """Say so where a backbone that was trained on one dataset is used on another."""
    trained, _, split = (resolved.trained_on or "").partition("/")
    if not split or trained == resolved.dataset.name:
        return ()
    why = "" if chosen else ", and is used since no other was named"
    return (
        f"Backbone {resolved.backbone_name!r} was trained on {resolved.trained_on} alone{why}."
        f" On other images it may do no better than guessing, which is right for"
        f" {1 / n_classes:.1%} of {n_classes} classes. --backbone names another one;"
        " `bench list backbones` shows all.",
    )


def make_prompts(resolved: Resolved, classes: tuple[str, ...]) -> Prompts:
    """Return the run's prompts, from the file, the template or the dataset's template."""
    config, spec = resolved.config, resolved.dataset
    if config.prompts:
        return from_file(Path(config.prompts), classes)
    own = config.template is not None
    return from_template(config.template or spec.template, classes, spec.phrases, as_written=own)


def find_weights(resolved: Resolved) -> Weights | None:
    """Return the backbone's weights, located but not read; None where it needs none.

    Raises:
        AbsentError: they are not on this machine.
        UserError: they cannot be what is meant.
    """
    weights = resolved.config.weights or resolved.backbone.weights
    if weights is None:
        return None
    return resolve_weights(weights, resolved.config.revision or resolved.backbone.revision)
