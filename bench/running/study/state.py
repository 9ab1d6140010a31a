"""The initial state of a study and its estimated remaining time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.running.settings import SETTINGS, about
from bench.running.study.file import DeclaredStudy
from bench.running.study.values import Entries
from bench.store.documents import StoredConfig
from bench.store.fields import without_none
from bench.store.studies import STUDY, Study, StudyCell, study_folder

# Settings that may differ between a cell and its stored run.
RESUMABLE_CHANGES = {n for n, s in SETTINGS.items() if s.identity is None} - {*about("data")}
# Entries that `study.json` stores as they are; a stopping rule is left out if there is none.
ENTRIES = {*Study.model_fields} & {*Entries.model_fields} - {"stop", "strict"}


def start_study(declared: DeclaredStudy, results: Path) -> Study:
    """Return a study with the cells of its file and, if it was started before, their stored state.

    Failed cells become waiting. A cell whose `limit` changed becomes a pilot: its stored images may
    not be those of the new limit.
    """
    folder, begun = study_folder(results, declared.name), now()
    stored: dict[str, StudyCell] = {}
    created = begun
    if (earlier := STUDY.read(folder, "")) is not None:
        created = earlier.created
        stored = {_cell_key(cell.config): cell for cell in earlier.cells}
    cells = []
    for cell in declared.cells:
        config = StoredConfig.model_validate(cell.config.model_dump(mode="json"))
        before = stored.get(_cell_key(config))
        figure = without_none(published=cell.published)
        fresh = StudyCell(axes=dict(cell.axes), config=config, **figure)
        if before is not None:
            kept = {"run_id": before.run_id, "images": before.images, "status": before.status}
            if before.status == "failed":
                kept["status"] = "waiting"
            elif before.config.limit != config.limit and before.status != "waiting":
                kept |= {"status": "pilot", "images": None}
            fresh = fresh.model_copy(update=kept)
        cells.append(fresh)
    return Study(
        **declared.model_dump(include=ENTRIES),
        file=declared.file,
        created=created,
        updated=begun,
        axes=list(declared.axes),
        cells=cells,
        **without_none(stop=declared.stop, strict=declared.strict or None),
    )


def _cell_key(config: StoredConfig) -> str:
    """Return the settings that a cell and its stored run must have in common, as JSON."""
    return config.model_dump_json(exclude=RESUMABLE_CHANGES)


def now() -> str:
    """Return the UTC time in ISO 8601, as documents store it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Clock:
    """Measured durations of cells, from which the remaining time is estimated."""

    overhead: list[float] = field(default_factory=list)  # seconds per cell other than scoring
    per_image: dict[int, float] = field(default_factory=dict)  # cell → seconds of scoring per image
    images: dict[int, int] = field(default_factory=dict)  # cell → images left to score

    def note(self, place: int, seconds: float, scoring: float, scored: int, left: int) -> None:
        """Record the seconds of a cell; `scored` images is 0 if the run was complete before."""
        self.overhead.append(max(0.0, seconds - scoring))
        self.images[place] = left
        if scored:
            self.per_image[place] = scoring / scored

    def left(self, cells: Sequence[tuple[int, int]]) -> float | None:
        """Return the seconds that `cells` will take; None before the first measurement.

        A cell's number of images is used only if the cell was not measured.
        """
        if not self.overhead:
            return None
        overhead = sum(self.overhead) / len(self.overhead)
        mean = sum(self.per_image.values()) / len(self.per_image) if self.per_image else 0.0
        return sum(
            overhead + self.per_image.get(place, mean) * self.images.get(place, images)
            for place, images in cells
        )
