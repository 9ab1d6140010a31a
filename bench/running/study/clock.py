"""How long the rest of a study will take, from what its runs took so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Clock:
    """What cells took so far, for the time that is left."""

    overhead: list[float] = field(default_factory=list)
    per_image: dict[int, float] = field(default_factory=dict)  # cell → seconds
    images: dict[int, int] = field(default_factory=dict)  # cell → images left to score

    def note(self, place: int, seconds: float, scoring: float, scored: int, left: int) -> None:
        """Take in what a cell took: in all, and for scoring so many images."""
        self.overhead.append(max(0.0, seconds - scoring))
        self.images[place] = left
        if scored:
            self.per_image[place] = scoring / scored

    def left(self, cells: Sequence[tuple[int, int]]) -> float | None:
        """Return the seconds that cells will take; None: nothing is known yet.

        Args:
            cells: their places, and the images of each if it was not noted.
        """
        if not self.overhead:
            return None
        each = sum(self.overhead) / len(self.overhead)
        mean = sum(self.per_image.values()) / len(self.per_image) if self.per_image else 0.0
        return sum(
            each + self.per_image.get(place, mean) * self.images.get(place, images)
            for place, images in cells
        )
