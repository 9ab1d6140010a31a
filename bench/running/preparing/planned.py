"""The plan of a stated risk's two parts: what is swept, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.discovery.loading import exhaustive
from bench.running.settings import RunConfig
from bench.store.calibrations import Calibration
from bench.store.fields import Amount, Count, Document, Positive, Share
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
    tested: tuple[Mapping[str, Any], ...]  # the settings to test, the safest first
    candidates: tuple[StrategyIdentity, ...]  # the strategy with each of them
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
