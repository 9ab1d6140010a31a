"""Crops at seeded places."""

from __future__ import annotations

import numpy as np
from PIL import Image

from bench.contracts.views import Views

SHARE = 7 / 8  # of the shorter side, as 224 of 256 pixels


class Crops(Views):
    """Square parts of the image.

    Args:
        count: how many.
    """

    def __init__(self, count: int = 5) -> None:
        if count < 1:
            raise ValueError(f"count={count}: at least one view is needed")
        self.count = count

    def of(self, image: Image.Image, seed: int) -> list[Image.Image]:
        """Return the crops; their places are uniformly random, from the seed alone."""
        rng = np.random.default_rng(seed)
        side = max(1, round(SHARE * min(image.size)))
        room = np.array(image.size) - side + 1
        corners = rng.integers(0, room, (self.count, 2)).tolist()
        return [image.crop((x, y, x + side, y + side)) for x, y in corners]
