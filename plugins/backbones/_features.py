"""Features of images for the classifiers that learn: pixels, or a model's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError
from bench.inputs.weights import Weights

PIXEL_SIDE = 16  # 768 features: more of them take minutes to fit, and are right no more often


class Pixels:
    """RGB values in [-1, 1] of the picture, reduced and cropped to a square of `side` pixels."""

    def __init__(self, side: int = PIXEL_SIDE) -> None:
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


Features = Callable[[Sequence[Image.Image]], NDArray[np.float32]]
PIXELS = "pixels"


def make_features(
    weights: Weights | None, device: str, dtype: str, features: str, resolution: int | None
) -> Features:
    """Return what makes features, float32 [n, D], of n images.

    Raises:
        UserError: they are unknown, or do not go together.
    """
    if features == PIXELS:
        if weights is not None:
            raise UserError(
                "features=pixels needs no weights: leave --weights out, or say --set"
                " features=embedding for the image embeddings of that model."
            )
        return Pixels(resolution or PIXEL_SIDE)
    if weights is None:
        raise UserError(
            f"features={features!r:.100} is not a known model, and --weights is unset. `bench list"
            " backbones linear-probe` shows what is known."
        )
    if resolution is not None:
        raise UserError("--resolution is that of features=pixels; a model has its own.")
    from bench_plugins.backbones._encoders import Encoder, kind_of

    return Encoder(weights, kind_of(weights), device, dtype).images
