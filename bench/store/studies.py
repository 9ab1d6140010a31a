"""Studies: what a grid of runs declares, and how far each of its runs is.

results/studies/<name>/study.toml     the file that declares it, as it was read
                       study.json     its cells, each with the id of its run in `results/`
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from bench.errors import UserError, quoted
from bench.machine.files import write_atomically
from bench.store.documents import StoredConfig
from bench.store.fields import Count, Document, Name, RunId, Share, first_problem
from bench.store.files import read_json
from bench.store.folder import to_json

STUDIES, STUDY, DECLARED = "studies", "study.json", "study.toml"
STUDY_FORMAT = 1

CellStatus = Literal["waiting", "pilot", "complete", "failed_samples", "failed"]


class StudyCell(Document):
    """One run of a study."""

    axes: dict[str, str]
    """Axis → what this cell has there, as tables show it: `{"dataset": "digits", "seed": "0"}`."""
    config: StoredConfig
    """What makes the run, as `bench run` takes it."""
    run_id: RunId | None = None
    """None: it was not prepared yet, or could not be."""
    images: Count | None = None
    """Asked for; None: not known yet."""
    status: CellStatus = "waiting"
    """How far it is."""
    error: str | None = None
    """Why it failed."""


class Study(Document):
    """`study.json`: a grid of runs and how far it is."""

    format: Count
    """Of this file."""
    name: Name
    """As the study's file has it."""
    file: str
    """The file that declares it, as it was named."""
    created: str
    """When, in ISO 8601."""
    updated: str
    """When, in ISO 8601."""
    axes: list[str] = Field(min_length=1)
    """Their names, in the order in which tables show them."""
    cells: list[StudyCell]
    """The runs."""
    pilot: Count = 0
    """Images of every run that are scored before any run is scored whole; 0: none."""
    margin: Share | None = None
    """Accuracies that differ by less count as equal, where a test shows it; None: none do."""
    shifts: list[tuple[str, str]] = Field(default_factory=list)
    """Datasets of which the second is a shift of the first."""
    backbone_groups: dict[str, list[str]] = Field(default_factory=dict)
    """The name of each group of backbones → its backbones, as tables call them."""
    whole_groups: bool = False
    """Whether the images of one group were taken together, so that they are drawn together."""
    over: Literal["images", "seeds"] = "images"
    """What tests and intervals are over; `seeds`: over other images and other seeds."""

    @property
    def done(self) -> int:
        """How many cells are complete."""
        return sum(cell.status in ("complete", "failed_samples") for cell in self.cells)

    @property
    def failed(self) -> int:
        """How many cells failed, or have images that did."""
        return sum(cell.status in ("failed", "failed_samples") for cell in self.cells)


def study_folder(results: Path, name: str) -> Path:
    """Return where a study is kept."""
    return results / STUDIES / name


def write_study(folder: Path, study: Study, declared: str | None = None) -> None:
    """Write a study's state, atomically, and what declares it.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if declared is not None:
        write_atomically(folder / DECLARED, declared)
    write_atomically(folder / STUDY, to_json(study.plain()), durable=False)


def read_study(folder: Path) -> Study:
    """Read a study's state.

    Raises:
        UserError: there is none, or it is damaged or of a newer version of the toolkit.
    """
    if not os.path.lexists(folder / STUDY):
        raise UserError(f"{folder} is not a study: it has no {STUDY}.")
    try:
        study = Study.model_validate(read_json(folder, STUDY))
    except ValidationError as error:
        raise UserError(f"{folder / STUDY} is not a study: {first_problem(error)}.") from None
    if study.format > STUDY_FORMAT:
        raise UserError(
            f"{folder / STUDY} was written by a newer version of the toolkit (format"
            f" {study.format}, this one knows {STUDY_FORMAT})."
        )
    return study


def find_study(study: str, results: str) -> Path:
    """Return the folder of a study named by its name or its folder.

    Raises:
        UserError: there is no such study.
    """
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
    """Return the folder that the runs of the study in `folder` are stored in."""
    return folder.parent.parent
