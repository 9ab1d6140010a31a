"""`calibration.json`: what the recorded images of a run say of decisions on other images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bench.errors import UserError
from bench.machine.files import writing
from bench.store.documents import Manifest
from bench.store.fields import (
    Amount,
    Count,
    Document,
    Name,
    Number,
    Positive,
    RunId,
    Share,
    read_document,
    without_none,
    write_document,
)
from bench.store.folder import places, read_manifest
from bench.store.identity import StrategyIdentity, digest
from bench.store.runs import LeftOut, warn

CALIBRATION = "calibration.json"
BESIDE = "calibration-*.json"
CALIBRATION_FORMAT = 1

Feature = Literal["margin", "evaluations"]


class Fit(Document):
    """A fitted logistic regression of "the decision is right"; see `bench.stats.probability`."""

    images: Positive  # number of images fitted
    right: Count  # number of them decided rightly
    unit: Amount  # unit of a margin: the median absolute margin of the images fitted
    features: list[Feature] = Field(min_length=1)  # features of a decision
    centre: list[Number]  # number subtracted from each feature
    spread: list[Number]  # number that each feature is divided by
    weights: list[Number]  # weight of each feature
    intercept: Number  # intercept of the regression

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        columns = (self.centre, self.spread, self.weights)
        if any(len(column) != len(self.features) for column in columns):
            raise ValueError("centre, spread and weights have one number for each feature")
        if self.right > self.images:
            raise ValueError(f"{self.right} of {self.images} images cannot be right")
        if not all(spread > 0 for spread in self.spread):
            raise ValueError("a spread is larger than zero")
        return self


class CalibratedSetting(Document):
    """The outcome of the calibrated images under one strategy and its parameters."""

    strategy: StrategyIdentity  # strategy with its parameters
    cost: Amount  # evaluation equivalents per image
    right: Count  # number of images decided rightly
    disagreements: Count | None = None  # images decided otherwise than by the full sweep
    fit: Fit | None = None  # None: too few right or wrong decisions to fit a probability


class Calibration(Document):
    """`calibration.json`, in the folder of the run whose images it is about.

    A calibration of other strategies, parameters or images lies beside it, in
    `calibration-KEY.json`, so that runs find the one that they were made with.
    """

    format: Count
    run_id: RunId
    identity: str  # hash of the run's identity
    split: Name  # split of the images
    images: Positive
    samples: list[str] | None = None  # ids of the images; None in early versions: all of the run
    of: Positive | None = None
    """Size of the split that they were drawn from, for a risk on its other images; None: it is for
    other images than those of the split."""
    level: Share  # confidence level of a bound on the disagreement
    chosen: list[str] = Field([])  # parameters that differ among the settings
    settings: list[CalibratedSetting] = Field([])
    """Settings among which a risk chooses, the safest first: an order fixed before the images."""
    others: list[CalibratedSetting] = Field([])  # settings that have only a fitted probability

    @property
    def key(self) -> str:
        """The hash of its strategies with their parameters and of the number of images."""
        strategies = [setting.strategy.plain() for setting in (*self.settings, *self.others)]
        drawn = without_none(of=self.of)
        return digest({"images": self.images, "strategies": strategies, **drawn})[:8]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.level < 1:
            raise ValueError(f"level {self.level} is not between 0 and 1")
        if self.samples is not None and len(set(self.samples)) != self.images:
            raise ValueError(f"{len(set(self.samples)):,} different samples, of {self.images:,}")
        for setting in (*self.settings, *self.others):
            counts = {
                "right": setting.right,
                "disagreements": setting.disagreements or 0,
                "fit.images": setting.fit.images if setting.fit else 0,
            }
            for name, count in counts.items():
                if count > self.images:
                    raise ValueError(f"{name} is {count:,}, of {self.images:,} images")
        return self


@dataclass(frozen=True)
class Calibrated:
    """A stored calibration with the manifest of its run."""

    path: Path
    manifest: Manifest
    calibration: Calibration

    def fits(self, manifest: Manifest) -> bool:
        """Tell whether it is about a run's question, on any images."""
        return question(self.manifest) == question(manifest)

    def shared(self, manifest: Manifest) -> int:
        """Return the number of a run's images among the calibrated ones; it must be 0."""
        samples = self.calibration.samples or self.manifest.samples
        return len(set(samples) & set(manifest.samples))


def question(manifest: Manifest) -> str:
    """Return the hash of a run's question: of all but its images and its strategy."""
    kept = manifest.identity.plain()
    for name in ("strategy", "calibrated", "replayed"):
        kept.pop(name, None)
    kept["dataset"] = {name: kept["dataset"][name] for name in ("name", "version")}
    return digest({**kept, "draws": manifest.draws, "classes": manifest.classes})


def calibration_files(path: Path) -> list[str]:
    """Return the names of the calibrations in a run's folder, the first one made first."""
    return [CALIBRATION, *sorted(file.name for file in path.glob(BESIDE))]


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration into its run's folder, in place of an earlier one of the same key."""
    try:
        first = read_calibration(path).calibration.key
    except UserError:  # absent or damaged: this one takes its place
        first = calibration.key
    name = CALIBRATION if first == calibration.key else BESIDE.replace("*", calibration.key)
    with writing(path / name):
        write_document(path / name, calibration)


def read_calibration(path: Path, name: str = CALIBRATION) -> Calibrated:
    """Read a calibration in a run's folder; UserError: absent, damaged, of another run or newer."""
    advice = f"`bench calibrate {path}` makes it."
    calibration = read_document(
        Calibration,
        path,
        name,
        what="a calibration",
        newest=CALIBRATION_FORMAT,
        advice=advice,
    )
    manifest = read_manifest(path)
    if calibration.identity != digest(manifest.identity):
        raise UserError(f"{path / name} is of another run than its folder. {advice}")
    return Calibrated(path, manifest, calibration)


def find_calibrations(results: Path, left_out: LeftOut = warn) -> Iterator[Calibrated]:
    """Yield the calibrations below a results folder; `left_out` is called for unreadable ones."""
    for path in sorted(places(results, CALIBRATION)):
        for name in calibration_files(path):
            try:
                yield read_calibration(path, name)
            except UserError as error:
                left_out(path, error)
