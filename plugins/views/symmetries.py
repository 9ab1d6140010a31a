"""Symmetries of the square. The image itself comes first."""

from __future__ import annotations

from PIL import Image

from bench.contracts.views import Views

Way = Image.Transpose
MIRRORED = (Way.FLIP_LEFT_RIGHT,)
TURNED = (Way.ROTATE_90, Way.ROTATE_180, Way.ROTATE_270)


class _Symmetries(Views):
    ways: tuple[Way, ...] = ()

    def __init__(self) -> None:
        self.count = 1 + len(self.ways)

    def of(self, image: Image.Image, seed: int) -> list[Image.Image]:
        """Return the image and its transpositions; nothing is random."""
        return [image, *(image.transpose(way) for way in self.ways)]


class Flip(_Symmetries):
    """The image, and mirrored left to right."""

    ways = MIRRORED


class Turns8(_Symmetries):
    """Turned by 0, 90, 180 and 270 degrees, and mirrored along each of four axes."""

    ways = (*TURNED, *MIRRORED, Way.FLIP_TOP_BOTTOM, Way.TRANSPOSE, Way.TRANSVERSE)
