"""A run, resolved and checked, with nothing heavy loaded, and the sweep of its stated risk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Sample
from bench.discovery.loading import exhaustive
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
from bench.running.resolve import Resolved
from bench.running.settings import RunConfig
from bench.store.calibrations import Calibration
from bench.store.documents import Manifest
from bench.store.fields import Amount, Count, Document, Positive, Share
from bench.store.folder import shard_folder
from bench.store.identity import StrategyIdentity


class SweepPlan(Document):
    """The two parts of a run with a stated risk, before anything is scored."""

    risk: Share  # largest share of the split's decisions that may differ from the full sweep's
    split: Positive  # number of images of the split
    swept: Positive  # number of them that are swept: those of the least expected cost
    allowed: Count  # largest number of the swept images that a setting may decide otherwise
    passes: Share  # probability that a setting passes which differs on 0.5 % of the decisions
    otherwise: str  # strategy that decides the other images where no setting passes
    sweep_cost: Amount  # evaluation equivalents of the sweep
    errors_bytes: Count  # disk space of its recorded errors, about
    rest: Count  # number of images asked for that are not swept; with a limit, the expected number
    rest_cost: Amount  # their expected evaluation equivalents
    rest_cost_at_least: Amount | None  # lower bound where a setting passes; None: not known
    rest_cost_at_most: Amount  # upper bound: every prompt on every draw
    full_cost: Amount  # evaluation equivalents of a full sweep of the images asked for
    schedule: str | None
    """Strategy with a fixed schedule in whose place the race is; None: there is none."""
    schedule_cost: Amount | None  # evaluation equivalents of the schedule, which promises nothing

    @property
    def cost(self) -> float:
        """Expected evaluation equivalents of both parts."""
        return self.sweep_cost + self.rest_cost

    def in_words(self) -> str:
        """Return what is done, and its cost."""
        return (
            f"--risk {self.risk:g}: {self.swept:,} of the split's {self.split:,} images, drawn"
            f" uniformly, are swept ({self.sweep_cost:,.0f} evaluations; their errors take about"
            f" {self.errors_bytes / 1e6:,.1f} MB). The cheapest setting that decides at most"
            f" {self.allowed:,} of them otherwise races the other {self.rest:,} (expected:"
            f" {self.rest_cost:,.0f} evaluations); if none does, {self.otherwise} decides them."
        )

    def warning(self) -> str | None:
        """Return a warning where another strategy is expected to be cheaper."""
        cost = f"sweep and race are expected to take {self.cost:,.0f} evaluations"
        full = f"the full sweep, which keeps any risk (--strategy {exhaustive()}),"
        if self.full_cost <= self.cost:
            return f"--risk {self.risk:g} does not pay: {cost}, {full} {self.full_cost:,.0f}."
        if self.schedule_cost is not None and self.schedule_cost < self.cost:
            return (
                f"--risk {self.risk:g} pays only if the promise is needed: {cost}, the published"
                f" schedule, which promises nothing (--strategy {self.schedule}), takes"
                f" {self.schedule_cost:,.0f}, and {full} {self.full_cost:,.0f}."
            )
        return None


@dataclass(frozen=True)
class PlannedSweep:
    """The sweep of a run with a stated risk."""

    plan: SweepPlan  # its size and cost
    config: RunConfig  # of the ordinary full sweep that it is a part of
    folder: Path  # of that run
    samples: tuple[str, ...]  # ids of the swept images, in the order of the split
    candidates: tuple[StrategyIdentity, ...]  # the strategy with each setting, the safest first
    calibration: Calibration | None = None
    """Test of the candidates on the swept images, of which those that failed count as decided
    otherwise; None: not made yet."""

    def missing_message(self) -> str:
        """Return how the calibration is made."""
        return (
            f"--risk {self.plan.risk:g} is not calibrated yet: {self.plan.swept:,} images are to be"
            " swept before. The same command with --sweep-only does so; in parts: with --sweep-only"
            f" --shard I/N, then `bench results merge {self.folder.name}` in the same results"
            " folder, then with --sweep-only alone."
        )


@dataclass(frozen=True, kw_only=True)
class Prepared(Resolved):
    """A run, resolved and checked, before anything heavy is loaded."""

    named: ClassNames  # the classes in label order, in words and as the data spells them
    prompts: Prompts
    weights: Weights | None
    """The located checkpoint; None where the backbone needs none, or it is absent."""
    split: Split | None  # the images; None where only classes and prompts were asked for
    described: Manifest | None = None  # the manifest; None without the images or the weights
    absent: tuple[str, ...] = ()  # what this machine lacks to execute it
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
    def classes(self) -> tuple[str, ...]:
        """Classes in words, in label order."""
        return self.named.names

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
