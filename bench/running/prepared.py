"""A run, resolved and checked, before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Sample
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError
from bench.inputs.class_names import ClassNames
from bench.inputs.controls import TEXT_ONLY, blinded
from bench.inputs.estimand import Weighting
from bench.inputs.fitting import FitSplit
from bench.inputs.prompts import Prompts
from bench.inputs.split import Split
from bench.inputs.subsets import parse_shard
from bench.inputs.weights import Weights
from bench.running.preparing.candidates import Shortlist
from bench.running.resolve import Resolved
from bench.running.settings import RunConfig
from bench.store.documents import Manifest
from bench.store.folder import shard_folder


@dataclass(frozen=True)
class Prepared:
    """A run, resolved and checked, before anything heavy is loaded.

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


def run_samples(prepared: Prepared, sample_ids: Iterable[str]) -> Iterator[Sample]:
    """Yield a run's images with these ids, blinded and with candidates as its settings say."""
    split, control, shortlist = prepared.split, prepared.config.control, prepared.shortlist
    assert split is not None, "prepared without images"
    if control is None or control == TEXT_ONLY:
        samples = split.samples(sample_ids, prepared.prompts)
    else:
        samples = blinded(split, sample_ids, prepared.prompts, control)
    if shortlist is None:
        return samples
    return (replace(s, candidates=shortlist.classes[s.sample_id]) for s in samples)
