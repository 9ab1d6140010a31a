"""A validated run before anything heavy is loaded, and the sweep that `--risk` needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Sample
from bench.discovery.loading import exhaustive_strategy
from bench.errors import UserError
from bench.inputs.class_names import ClassNames
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.estimand import Weighting
from bench.inputs.fitting import FitSplit
from bench.inputs.prompts import Prompts
from bench.inputs.replaced import TEXT_ONLY, blind_samples
from bench.inputs.split import Split
from bench.inputs.weights import Weights
from bench.running.preparing.others import Shortlist
from bench.running.resolve import Resolved
from bench.running.settings import RunConfig
from bench.store.calibrations import Calibration
from bench.store.documents import Manifest
from bench.store.fields import Amount, Count, Document, Positive, Share
from bench.store.folder import shard_folder
from bench.store.identity import StrategyIdentity


class SweepPlan(Document):
    """Plan of a run with `--risk`: some images are swept, then the others are raced."""

    risk: Share  # largest share of the split's decisions that may differ from the full sweep's
    split: Positive  # number of images of the split
    swept: Positive  # number of swept images, chosen for the lowest expected total cost
    allowed: Count  # largest number of swept images on which a setting may differ from the sweep
    passes: Share  # probability that a setting passes if it differs on 0.5 % of the decisions
    otherwise: str  # fallback strategy for the other images if no setting passes
    sweep_cost: Amount  # evaluation equivalents of the sweep
    errors_bytes: Count  # approximate disk space of its recorded errors
    rest: Count  # number of images asked for that are not swept; with a limit, the expected number
    rest_cost: Amount  # their expected evaluation equivalents
    rest_cost_at_least: Amount | None  # lower bound if a setting passes; None if unknown
    rest_cost_at_most: Amount  # upper bound: every prompt on every draw
    full_cost: Amount  # evaluation equivalents of a full sweep of the images asked for
    schedule: str | None
    """Strategy with a fixed schedule that the race replaces; None if there is none."""
    schedule_cost: Amount | None  # evaluation equivalents of the schedule, which has no promise

    @property
    def cost(self) -> float:
        """Expected evaluation equivalents of both parts."""
        return self.sweep_cost + self.rest_cost

    def in_words(self) -> str:
        """Return the plan and its cost as text."""
        return (
            f"--risk {self.risk:g}: {self.swept:,} of the split's {self.split:,} images, drawn"
            f" uniformly, are swept ({self.sweep_cost:,.0f} evaluations; their errors take about"
            f" {self.errors_bytes / 1e6:,.1f} MB). The cheapest setting that differs from the sweep"
            f" on at most {self.allowed:,} of them races the other {self.rest:,} (expected:"
            f" {self.rest_cost:,.0f} evaluations); if none does, {self.otherwise} decides them."
        )

    def warning(self) -> str | None:
        """Return a warning if another strategy is expected to be cheaper."""
        cost = f"sweep and race are expected to take {self.cost:,.0f} evaluations"
        full = (
            f"the full sweep (--strategy {exhaustive_strategy()}), which keeps any risk, takes"
            f" {self.full_cost:,.0f}"
        )
        if self.full_cost <= self.cost:
            return f"--risk {self.risk:g} does not pay: {cost}, but {full}."
        if self.schedule_cost is not None and self.schedule_cost < self.cost:
            return (
                f"--risk {self.risk:g} pays only if the promise is needed: {cost}, but the"
                f" published schedule (--strategy {self.schedule}), which promises nothing, takes"
                f" {self.schedule_cost:,.0f}, and {full}."
            )
        return None


@dataclass(frozen=True)
class PlannedSweep:
    """The sweep of a run with a stated risk."""

    plan: SweepPlan  # its size and cost
    config: RunConfig  # settings of the ordinary full sweep that it is a part of
    folder: Path  # folder of that full sweep
    samples: tuple[str, ...]  # ids of the swept images, in the order of the split
    candidates: tuple[StrategyIdentity, ...]  # the strategy with each tested setting, safest first
    calibration: Calibration | None = None
    """Test of the candidates on the swept images, in which failed images count as differing; None
    if not made yet."""

    def missing_message(self) -> str:
        """Return an error message that explains how to make the calibration."""
        return (
            f"--risk {self.plan.risk:g} is not calibrated yet: {self.plan.swept:,} images must be"
            " swept first. Run the same command with --sweep-only. To sweep in parts, run it with"
            f" --sweep-only --shard I/N, then `bench results merge {self.folder.name}` in the same"
            " results folder, then with --sweep-only alone."
        )


@dataclass(frozen=True, kw_only=True)
class Prepared(Resolved):
    """A validated run, before anything heavy is loaded."""

    named: ClassNames  # the classes in label order: readable names and the spelling of the data
    prompts: Prompts
    weights: Weights | None
    """The located checkpoint; None if the backbone needs none or it is absent."""
    split: Split | None  # the images; None if only classes and prompts were requested
    described: Manifest | None = None  # the manifest; None without images or weights
    absent: tuple[str, ...] = ()  # what this machine lacks to execute it
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    weighting: Weighting  # the weights over the noise levels, fitted if they are learned
    warnings: tuple[str, ...] = ()  # to be issued before the run
    loaded: Any = None  # the backbone itself, if the caller has loaded it
    learns_from: FitSplit | None = None
    """The images that the backbone is fitted on; None if it does not learn."""
    shortlist: Shortlist | None = None  # the candidates of each image; None to score all classes
    sweep: PlannedSweep | None = None
    """The sweep for a stated risk; None if no risk is stated or it was calibrated on other
    images."""

    @property
    def backbone_key(self) -> tuple[object, ...]:
        """What is loaded, with the content of the weights in the place of their name."""
        weights = self.weights
        content = weights and (weights.location, weights.revision, weights.fingerprint)
        return (*super().backbone_key[:-1], content)

    @property
    def classes(self) -> tuple[str, ...]:
        """Readable class names, in label order."""
        return self.named.names

    @property
    def manifest(self) -> Manifest:
        """Manifest of the run; raises UserError without images, weights or a calibrated risk."""
        if self.described is None:
            if self.sweep is not None:
                raise UserError(self.sweep.missing_message())
            raise UserError(self.absent[0] if self.absent else "Prepared without images.")
        return self.described

    @property
    def folder(self) -> Path:
        """Folder of the results; every shard has its own."""
        whole, shard = Path(self.config.results, self.manifest.run_id), self.config.shard
        return whole if shard is None else shard_folder(whole, shard.index, shard.count)

    @property
    def sample_ids(self) -> list[str]:
        """Ids of the images asked for."""
        return self.manifest.samples


def run_samples(prepared: Prepared, sample_ids: Iterable[str]) -> Iterator[Sample]:
    """Yield a run's images, with the control, corruption and candidates of its settings applied."""
    split, control, shortlist = prepared.split, prepared.config.control, prepared.shortlist
    assert split is not None, "prepared without images"
    if control is None or control == TEXT_ONLY:
        samples = split.samples(sample_ids, prepared.prompts)
    else:
        samples = blind_samples(split, sample_ids, prepared.prompts, control)
    samples = corrupt_samples(samples, prepared.config.corrupt)
    if shortlist is None:
        return samples
    return (replace(s, candidates=shortlist.classes[s.sample_id]) for s in samples)
