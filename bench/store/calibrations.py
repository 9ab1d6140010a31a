"""`calibration.json`: how right a strategy's decisions were on the recorded images of a run.

Other runs use it to choose parameters for a stated risk, and to predict how likely they are right.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bench.errors import UserError
from bench.store.folder import folders_with, read_manifest
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import (
    Amount,
    Count,
    Document,
    Name,
    Number,
    Positive,
    RunId,
    Share,
    without_none,
)
from bench.store.formats.identity import StrategyIdentity, digest
from bench.store.locking import locked
from bench.store.runs import OnUnreadable, warn_left_out
from bench.store.sidecar import Sidecar

CALIBRATION = "calibration.json"
FURTHER_CALIBRATIONS = "calibration-*.json"

Feature = Literal["margin", "evaluations"]


class Fit(Document):
    """Whether a decision is right, by a regression: `bench.stats.calibration.probability`."""

    images: Positive  # number of images fitted
    right: Count  # number of these that were decided correctly
    unit: Amount  # unit of margins: the median absolute margin of the images fitted
    features: list[Feature] = Field(min_length=1)  # features of a decision
    centre: list[Number]  # number subtracted from each feature
    spread: list[Number]  # number by which each feature is divided, after `centre` is subtracted
    weights: list[Number]  # coefficient of each feature
    intercept: Number  # intercept of the regression

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        columns = (self.centre, self.spread, self.weights)
        if any(len(column) != len(self.features) for column in columns):
            raise ValueError("centre, spread and weights must have one number per feature")
        if self.right > self.images:
            raise ValueError(f"right must be at most {self.images} (images), got {self.right}")
        if not all(spread > 0 for spread in self.spread):
            raise ValueError(f"every spread must be above 0, got {min(self.spread):g}")
        return self


class CalibratedSetting(Document):
    """The results of one strategy with its parameters on the calibration images."""

    strategy: StrategyIdentity  # strategy with its parameters
    cost: Amount  # evaluation equivalents per image
    right: Count  # number of images decided correctly
    disagreements: Count | None = None  # number of images decided differently by the full sweep
    fit: Fit | None = None  # None if too few decisions were right, or too few wrong, for a fit
    held_out_skill: Number | None = None
    """Skill of such a fit in log loss on images that were not fitted; None: not measured."""


class Calibration(Document):
    """`calibration.json`, in the folder of the run with the calibration images.

    Those of other strategies, parameters or images are kept beside it, as `calibration-KEY.json`.
    """

    run_id: RunId
    identity: str  # hash of the run's identity
    split: Name  # split of the images
    images: Positive
    samples: list[str] | None = None  # ids of the images; None in early versions: all of the run
    of: Positive | None = None
    """Number of images of their split, if the risk is that of its rest; None if of other splits."""
    level: Share  # confidence level of the bound on the share of disagreements
    chosen: list[str] = Field([])  # parameters that differ among the settings
    settings: list[CalibratedSetting] = Field([])
    """Settings among which a stated risk chooses, in an order fixed beforehand, safest first."""
    others: list[CalibratedSetting] = Field([])  # settings that have only a fitted probability

    @property
    def key(self) -> str:
        """Eight hex digits of the hash of strategies, parameters and number of images."""
        strategies = [setting.strategy.plain() for setting in (*self.settings, *self.others)]
        content = {"images": self.images, "strategies": strategies, **without_none(of=self.of)}
        return digest(content)[:8]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.level < 1:
            raise ValueError(f"level must be above 0 and below 1, got {self.level}")
        if self.samples is not None and (n := len(set(self.samples))) != self.images:
            raise ValueError(f"samples must have {self.images:,} different ids, got {n:,}")
        for setting in (*self.settings, *self.others):
            fitted = setting.fit.images if setting.fit else 0
            counts = {"right": setting.right, "disagreements": setting.disagreements or 0}
            for name, count in {**counts, "fit.images": fitted}.items():
                if count > self.images:
                    raise ValueError(f"{name} must be at most {self.images:,}, got {count:,}")
        return self


@dataclass(frozen=True)
class Calibrated:
    """A stored calibration with the manifest of its run."""

    path: Path
    manifest: Manifest
    calibration: Calibration

    def applies_to(self, manifest: Manifest) -> bool:
        """Return whether a run differs from the calibrated one in images and strategy only."""
        return _setup_digest(self.manifest) == _setup_digest(manifest)

    def shared_images(self, manifest: Manifest) -> int:
        """Return how many images of a run were calibrated on; it is valid for the run only if 0."""
        samples = self.calibration.samples or self.manifest.samples
        return len(set(samples) & set(manifest.samples))


def _setup_digest(manifest: Manifest) -> str:
    """Return the hash of everything that identifies a run, except its images and its strategy."""
    setup = manifest.identity.plain()
    for name in ("strategy", "calibrated", "replayed"):
        setup.pop(name, None)
    data = manifest.identity.dataset
    setup["dataset"] = {"name": data.name, "version": data.version}
    return digest({**setup, "draws": manifest.draws, "classes": manifest.classes})


def calibration_files(path: Path) -> list[str]:
    """Return the names of a run's calibrations, first `CALIBRATION`, even if that is absent."""
    return [CALIBRATION, *sorted(file.name for file in path.glob(FURTHER_CALIBRATIONS))]


def _sidecar(path: Path, name: str = CALIBRATION) -> Sidecar[Calibration]:
    return Sidecar(
        name,
        Calibration,
        "a calibration",
        f"`bench learn {path} calibration` makes it.",
        accepts_unsealed=lambda calibration, identity: calibration.identity == identity,
    )


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, replacing one with the same key. Raises as `locked`."""
    with locked(path) as folder:
        first = _sidecar(path).read(path, calibration.identity)
        name = CALIBRATION
        if first is not None and first.key != calibration.key:
            name = FURTHER_CALIBRATIONS.replace("*", calibration.key)
        _sidecar(path, name).write(folder, calibration.identity, calibration)


def read_calibration(path: Path, name: str = CALIBRATION) -> Calibrated:
    """Read a run's calibration (UserError if absent, damaged, newer, or of another run)."""
    manifest = read_manifest(path)
    calibration = _sidecar(path, name).require(path, digest(manifest.identity))
    return Calibrated(path, manifest, calibration)


def calibrations_of(path: Path, left_out: OnUnreadable = warn_left_out) -> Iterator[Calibrated]:
    """Yield the calibrations of a run; unreadable and false ones go to `left_out`."""
    for name in calibration_files(path):
        if os.path.lexists(path / name):
            try:
                yield read_calibration(path, name)
            except UserError as error:
                left_out(path, error)


def find_calibrations(
    results: Path, left_out: OnUnreadable = warn_left_out
) -> Iterator[Calibrated]:
    """Yield the calibrations of all runs with a `calibration.json`; see `calibrations_of`."""
    for path in sorted(folders_with(results, CALIBRATION)):
        yield from calibrations_of(path, left_out)
