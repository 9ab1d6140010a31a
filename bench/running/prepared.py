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
from bench.inputs.corruptions import corrupted
from bench.inputs.estimand import Weighting
from bench.inputs.fitting import FitSplit
from bench.inputs.prompts import Prompts
from bench.inputs.replaced import TEXT_ONLY, blinded
from bench.inputs.split import Split
from bench.inputs.subsets import parse_shard
from bench.inputs.weights import Weights
from bench.running.preparing.others import Shortlist
from bench.running.preparing.planned import PlannedSweep
from bench.running.resolve import Resolved
from bench.running.settings import RunConfig
from bench.store.documents import Manifest
from bench.store.folder import shard_folder


@dataclass(frozen=True)
class Prepared:
    """A run, resolved and checked, before anything heavy is loaded."""

    resolved: Resolved
    named: ClassNames  # the classes in label order, in words and as the data spells them
    prompts: Prompts
    weights: Weights | None
    """The located checkpoint; None where the backbone needs none, or it is absent."""
    split: Split | None  # the images; None where only classes and prompts were asked for
    described: Manifest | None  # the manifest; None without the images or the weights
    absent: tuple[str, ...]  # what this machine lacks to execute it
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    weighting: Weighting  # the weights over the levels, also where they were learned
    warnings: tuple[str, ...] = ()  # for the user, before the run
    loaded: Any = None  # the backbone itself, where the caller has loaded it
    learns_from: FitSplit | None = None
    """The images that the backbone is fitted on; None: it is not, or there are none."""
    shortlist: Shortlist | None = None  # the candidates of each image; None: all classes are scored
    sweep: PlannedSweep | None = None
    """Images of the run that are swept for a stated risk; None: no risk is stated, or it was
    calibrated on other images."""

    @property
    def config(self) -> RunConfig:
        """Settings as they were read."""
        return self.resolved.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes in words, in label order."""
        return self.named.names

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy, made from its parameters."""
        return self.resolved.strategy

    @property
    def manifest(self) -> Manifest:
        """Manifest; a UserError without images or weights, or before a risk is calibrated."""
        if self.described is None:
            if self.sweep is not None:
                raise UserError(self.sweep.missing_message())
            raise UserError(self.absent[0] if self.absent else "Prepared without images.")
        return self.described

    @property
    def folder(self) -> Path:
        """Folder of the results, of a shard its own."""
        whole = Path(self.config.results, self.manifest.run_id)
        if self.config.shard is None:
            return whole
        shard = parse_shard(self.config.shard)
        return shard_folder(whole, shard.index, shard.count)

    @property
    def sample_ids(self) -> list[str]:
        """Ids of the images asked for."""
        return self.manifest.samples


def run_samples(prepared: Prepared, sample_ids: Iterable[str]) -> Iterator[Sample]:
    """Yield a run's images: blinded, corrupted and with candidates, as its settings say."""
    split, control, shortlist = prepared.split, prepared.config.control, prepared.shortlist
    assert split is not None, "prepared without images"
    if control is None or control == TEXT_ONLY:
        samples = split.samples(sample_ids, prepared.prompts)
    else:
        samples = blinded(split, sample_ids, prepared.prompts, control)
    samples = corrupted(samples, prepared.config.corrupt)
    if shortlist is None:
        return samples
    return (replace(s, candidates=shortlist.classes[s.sample_id]) for s in samples)
