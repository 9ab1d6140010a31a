"""Studies: grids of runs, as declared, and the state of each run.

results/studies/<name>/study.toml     the file that declares it, as it was read
                       study.json     its cells, each with the id of its run in `results/`
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from bench.errors import UserError, quoted
from bench.machine.files import write_atomically
from bench.store.documents import StoredConfig
from bench.store.fields import (
    Count,
    Document,
    Interval,
    Name,
    RunId,
    Share,
    read_document,
    write_document,
)

STUDIES, STUDY, DECLARED = "studies", "study.json", "study.toml"
STUDY_FORMAT = 1

CellStatus = Literal["waiting", "pilot", "complete", "failed_samples", "failed"]


class StudyCell(Document):
    """One run of a study."""

    axes: dict[str, str]  # axis → value of this cell: `{"dataset": "digits", "seed": "0"}`
    config: StoredConfig  # settings of the run, as for `bench run`
    run_id: RunId | None = None  # id of the run; None: it was not prepared yet, or could not be
    images: Count | None = None  # number of images requested; None: not known yet
    status: CellStatus = "waiting"  # state of the run
    error: str | None = None  # reason of the failure


class MethodStanding(Document):
    """One method of a study that stops."""

    method: str  # its values on the axes that tell methods apart
    verdict: Literal["best", "left", "open", "ranked"]
    """`left`: shown not to be the best; `best`: none that is left is better by the margin;
    `ranked`: its order among all is shown; `open`: not shown."""
    images: Count  # number of images that it scored
    shown_after: Count | None = None  # number of images that shows that it is not the best
    accuracy: Share  # accuracy on its images
    anytime_ci95: Interval  # 95 % interval of the accuracy, valid at any number of images


class BoardStanding(Document):
    """What ended a study on one dataset, or has not yet."""

    board: str  # the dataset, as the study names it
    decided: bool  # whether its question is answered
    images: Count  # number of images of the last round
    total: Count  # number of images of the split
    methods: list[MethodStanding]  # the best first
    unresolved: list[tuple[str, str]] = Field([])  # pairs of methods whose order is not shown


class Study(Document):
    """`study.json`: a grid of runs and its state."""

    format: Count
    name: Name  # name of the study in its file
    file: str  # path of the file that declares it, as the user gave it
    created: str
    updated: str  # time of the last change, in ISO 8601
    axes: list[str] = Field(min_length=1)  # names of the axes, in the order of the tables
    cells: list[StudyCell]  # runs of the study
    pilot: Count = 0  # number of images per run scored before any run is scored whole; 0: none
    margin: Share | None = None  # margin of equality; None: equality is not tested
    shifts: list[tuple[str, str]] = Field([])  # pairs of datasets, the second shifted
    backbone_groups: dict[str, list[str]] = Field({})  # name of each group → its backbones
    whole_groups: bool = False  # whether each group's images are resampled together
    over: Literal["images", "seeds"] = "images"  # population of tests and intervals
    stop: Literal["best", "ranked"] | None = None  # what ends it; None: all images are scored
    standings: list[BoardStanding] = Field([])  # what its images showed, of a study that stops

    @property
    def done(self) -> int:
        """Number of complete cells."""
        return sum(cell.status in ("complete", "failed_samples") for cell in self.cells)

    @property
    def failed(self) -> int:
        """Number of cells that failed or have failed images."""
        return sum(cell.status in ("failed", "failed_samples") for cell in self.cells)


def study_folder(results: Path, name: str) -> Path:
    """Return the folder of a study."""
    return results / STUDIES / name


def write_study(folder: Path, study: Study, declared: str | None = None) -> None:
    """Write a study's state, atomically, and the file that declares it; may raise OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if declared is not None:
        write_atomically(folder / DECLARED, declared)
    write_document(folder / STUDY, study, durable=False)


def read_study(folder: Path) -> Study:
    """Read a study's state; UserError: it is absent, damaged, or of a newer version."""
    if not os.path.lexists(folder / STUDY):
        raise UserError(f"{folder} is not a study: it has no {STUDY}.")
    return read_document(Study, folder, STUDY, what="a study", newest=STUDY_FORMAT)


def find_study(study: str, results: str) -> Path:
    """Return the folder of a study, from its name or its folder; UserError: there is none."""
    for path in (Path(study), study_folder(Path(results), study)):
        if os.path.lexists(path / STUDY):
            return path
    raise UserError(
        f"There is no study {quoted(study)}, neither as a folder nor in"
        f" {quoted(str(Path(results, STUDIES)))}. `bench study FILE.toml` makes one."
    )


def list_studies(results: Path) -> Iterator[Path]:
    """Yield the folders of the studies below `results`, in the order of their names."""
    below = results / STUDIES
    if below.is_dir():
        yield from sorted(path for path in below.iterdir() if os.path.lexists(path / STUDY))


def results_of(folder: Path) -> Path:
    """Return the results folder with the runs of the study in `folder`."""
    return folder.parent.parent
