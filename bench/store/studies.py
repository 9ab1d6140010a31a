"""Studies: grids of runs, with the state of each run.

results/studies/<name>/study.toml     copy of the file that declares the study
                       study.json     its cells, each with the id of its run in `results/`
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from bench.errors import UserError, quoted
from bench.store.formats.documents import Manifest, StoredConfig
from bench.store.formats.fields import Count, Document, Interval, Name, Positive, RunId, Share
from bench.store.locking import LockedFolder
from bench.store.sidecar import Sidecar

STUDIES, DECLARED = "studies", "study.toml"
_SETTINGS = "run_id dataset split backbone weights strategy template seed corrupt"
SETTINGS_OF_CELLS = tuple(_SETTINGS.split())
PATHS = {"dataset": "data_dir", "backbone": "weights"}  # runs that name a reader have a path here

Seen = Literal["first hand", "second hand"]  # in the source itself, or as others transcribe it


def described(source: str, seen: Seen | None) -> str:
    """Return the source of a figure of others, and how it was read."""
    return source + (f", read at {seen}" if seen else "")


class Published(Document):
    """A published figure for a run of a study, and what differs from the publication."""

    source: Name  # the publication, and its table or page
    value: Share | None = None  # None if it was not read
    seen: Seen | None = None  # how the value was read
    metric: Name = "accuracy"  # name of the metric
    images: Positive | None = None  # number of images behind the value
    differs: list[str] = Field([])  # such as a subset that was not published
    rehearsal: bool = False
    """Whether the user chose another model, strategy or number of images: values do not compare."""
    margin: Share | None = None  # differences within it count as none, declared beforehand
    difference: float | None = None  # our value minus this one, None in the plan of a study
    difference_ci95: tuple[float, float] | None = None
    """Newcombe's 95 % interval of two shares of different images; None for another metric, if a
    number of images is unknown, or if the results ended our run."""

    def compared(self, images: int | None) -> Self:
        """Return a copy that says how a run on `images` images differs."""
        if self.images is None or images in (None, self.images):
            return self
        differs = [*self.differs, f"images: {images:,} instead of {self.images:,}"]
        return self.model_copy(update={"differs": differs})

    @property
    def described(self) -> str:
        """The source, and how the value was read."""
        return described(self.source, self.seen)

    @property
    def verdict(self) -> str | None:
        """How our value compares, `repeats` only if no setting differs; None if it cannot be."""
        if self.rehearsal:
            return "rehearsal: not comparable"
        if self.difference_ci95 is None:
            return None
        low, high = self.difference_ci95
        if self.margin is not None and -self.margin <= low and high <= self.margin:
            within = f"within ±{100 * self.margin:g}"
            return within if self.differs else f"repeats, {within}"
        return "differs" if low > 0 or high < 0 else "undecided"


CellStatus = Literal["waiting", "pilot", "complete", "failed_samples", "failed"]


class StudyCell(Document):
    """One run of a study."""

    axes: dict[str, str]  # axis → value of this cell: `{"dataset": "digits", "seed": "0"}`
    config: StoredConfig  # settings of the run, as for `bench run`
    published: Published | None = None  # published figure, None if there is none
    run_id: RunId | None = None  # id of the run, None if it was not prepared or preparing failed
    images: Count | None = None  # number of images requested, None if not known yet
    status: CellStatus = "waiting"  # state of the run
    error: str | None = None  # reason of the failure

    def differing_setting(self, manifest: Manifest) -> str | None:
        """Return the setting in which a run is not the one of this cell; None if it may be.

        Settings are compared as the user gave them, folders by their last part. One that only the
        cell or the run names may be a default.
        """
        cell = {**self.config.plain(), "run_id": self.run_id}
        run = {**manifest.config.plain(), "run_id": manifest.run_id}
        for name in SETTINGS_OF_CELLS:
            values = [run.get(name), run.get(PATHS.get(name, name))]
            names = {Path(str(value)).name for value in values if value is not None}
            if names and cell.get(name) is not None and Path(str(cell[name])).name not in names:
                return name
        return None


class MethodStanding(Document):
    """The result of one method in a study with a stopping rule."""

    method: str  # values on the axes that distinguish methods
    verdict: Literal["best", "left", "open", "ranked"]
    """`left`: no longer scored, because it is not the best or, without `shown_after`, because the
    best is within the margin of it; `best`: no remaining method is better by more than the margin;
    `ranked`: its place among all methods is significant; `open`: undecided."""
    images: Count  # number of images scored
    shown_after: Count | None = None  # number of images after which it was shown not to be the best
    p: Share | None = None
    """p of a closed test of "it is a best method", for a method that left: at most 0.05 if it is
    worse than the best, with 5 % for all methods together. None in studies of earlier versions."""
    accuracy: Share  # accuracy on its images
    anytime_ci95: Interval  # 95 % interval of the accuracy, valid at any number of images


class BoardStanding(Document):
    """The progress on one dataset of a study with a stopping rule."""

    board: str  # the dataset, as the study names it
    decided: bool  # whether the stopping rule is met
    images: Count  # number of images of the last round
    total: Count  # number of images of the split
    methods: list[MethodStanding]  # methods, the best first
    unresolved: list[tuple[str, str]] = Field([])  # pairs of methods whose order is undecided


class StudyHead(Document):
    """What the state of a study and its report have in common."""

    name: Name  # name of the study in its file
    file: str  # path of the file that declares it, as the user gave it
    updated: str  # time of the last change, in ISO 8601
    question: str = ""  # what the study asks
    axes: list[str] = Field(min_length=1)  # names of the axes, in the order of the tables
    stop: Literal["best", "ranked"] | None = None  # stopping rule, None if all images are scored
    standings: list[BoardStanding] = Field([])  # progress on each dataset under the stopping rule


class Study(StudyHead):
    """`study.json`: a grid of runs and its state."""

    created: str
    cells: list[StudyCell]  # runs of the study
    pilot: Count = 0  # number of images scored in each run before any run is completed; 0 for none
    margin: Share | None = None  # margin of equivalence, None if it is not tested
    shifts: list[tuple[str, str]] = Field([])  # pairs of datasets, the second one shifted
    whole_groups: bool = False  # whether the images of a group are resampled together
    over: Literal["images", "seeds"] = "images"  # population of tests and intervals
    strict: bool | None = None
    """Whether a method left only if it is shown to be worse than the best, all methods together."""

    @property
    def done(self) -> int:
        """Number of complete cells."""
        return sum(cell.status in ("complete", "failed_samples") for cell in self.cells)

    @property
    def failed(self) -> int:
        """Number of cells that failed or have failed images."""
        return sum(cell.status in ("failed", "failed_samples") for cell in self.cells)


def study_folder(results: Path, name: str) -> Path:
    """Return the folder of the study `name`."""
    return results / STUDIES / name


STUDY = Sidecar(
    "study.json",
    Study,
    "a study",
    "`bench study FILE.toml` makes it again from the runs that are stored.",
    covers_records=False,
)


def write_study(folder: LockedFolder, study: Study, declared: str | None = None) -> None:
    """Write a study's state and, if not None, the text of the file that declares it."""
    if declared is not None:
        folder.write(DECLARED, declared)
    STUDY.write(folder, "", study, durable=False)


def read_study(folder: Path) -> Study:
    """Read a study's state; UserError if it is absent, damaged, changed, or of a newer format."""
    if not os.path.lexists(folder / STUDY.name):
        raise UserError(f"{folder} is not a study: it has no {STUDY.name}.")
    return STUDY.require(folder, "")


def find_study(study: str, results: str) -> Path:
    """Return the folder of a study, from its name or folder; raise UserError if there is none."""
    for path in (Path(study), study_folder(Path(results), study)):
        if os.path.lexists(path / STUDY.name):
            return path
    raise UserError(
        f"There is no study {quoted(study)}, neither as a folder nor in"
        f" {quoted(str(Path(results, STUDIES)))}. `bench study FILE.toml` makes one."
    )


def list_studies(results: Path) -> Iterator[Path]:
    """Yield the folders of the studies below `results`, sorted by name."""
    below = results / STUDIES
    if below.is_dir():
        yield from sorted(path for path in below.iterdir() if os.path.lexists(path / STUDY.name))


def results_of(folder: Path) -> Path:
    """Return the results folder with the runs of the study in `folder`."""
    return folder.parent.parent
