"""Views of one image: its symmetries, crops at seeded places, samples of its latent."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from bench.contracts.views import Views

Way = Image.Transpose
TURNS = (Way.ROTATE_90, Way.ROTATE_180, Way.ROTATE_270)
MIRRORS = (Way.FLIP_LEFT_RIGHT, Way.FLIP_TOP_BOTTOM, Way.TRANSPOSE, Way.TRANSVERSE)


class _Symmetries(Views):
    ways: tuple[Way, ...] = ()

    def __init__(self) -> None:
        self.count = 1 + len(self.ways)

    @override
    def of(self, image: Image.Image, seed: int) -> list[Image.Image]:
        return [image, *(image.transpose(way) for way in self.ways)]


class Flip(_Symmetries):
    """The image and its mirror image."""

    spec: ClassVar[dict[str, Any]] = {"name": "flip"}
    ways = MIRRORS[:1]


class Turns8(_Symmetries):
    """The eight symmetries of a square: four turns, each mirrored or not."""

    spec: ClassVar[dict[str, Any]] = {"name": "turns8"}
    ways = (*TURNS, *MIRRORS)


CROP_SHARE = 7 / 8  # of the shorter side, as 224 of 256 pixels


class Crops(Views):
    """Squares at seeded places, 7/8 as long as the image's shorter side.

    Args:
        count: how many.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "crop"}

    def __init__(self, count: int = 5) -> None:
        if count < 1:
            raise ValueError(f"count={count}: at least one view is needed")
        self.count = count

    def of(self, image: Image.Image, seed: int) -> list[Image.Image]:
        """Return the crops; their places are uniformly random, from the seed alone."""
        rng = np.random.default_rng(seed)
        side = max(1, round(CROP_SHARE * min(image.size)))
        room = np.array(image.size) - side + 1
        corners = rng.integers(0, room, (self.count, 2)).tolist()
        return [image.crop((x, y, x + side, y + side)) for x, y in corners]


class Posterior(Views):
    """Samples of the autoencoder's posterior, drawn by the toolkit, for backbones that offer it.

    Args:
        count: how many.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "posterior"}
    samples_latents = True

    def __init__(self, count: int = 8) -> None:
        if count < 1:
            raise ValueError(f"count={count}: at least one view is needed")
        self.count = count

    @override
    def of(self, image: Image.Image, seed: int) -> Sequence[Image.Image]:
        return [image] * self.count
