"""Pixels as features: the picture itself, made small; no weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16  # 768 features: more of them take minutes to fit, and are right no more often


class Pixels:
    """RGB values in [-1, 1] of the picture, reduced and cropped to a square.

    Args:
        side: of the square, in pixels.
    """

    def __init__(self, side: int = SIDE) -> None:
        self.side = side

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return features, float32 [n, 3 · side · side]."""
        return np.stack([self._of(image) for image in images])

    def _of(self, image: Image.Image) -> NDArray[np.float32]:
        picture = image.convert("RGB")
        scale = self.side / min(picture.size)
        width, height = (max(self.side, round(scale * length)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        square = picture.crop((left, top, left + self.side, top + self.side))
        values: NDArray[np.float32] = np.asarray(square, np.float32).ravel() / 127.5 - 1
        return values
