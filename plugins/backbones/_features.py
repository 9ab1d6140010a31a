"""Features of images for the classifiers that learn: pixels, or a model's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._pixels import SIDE, Pixels

Features = Callable[[Sequence[Image.Image]], NDArray[np.float32]]
PIXELS = "pixels"


def make_features(
    weights: Weights | None, device: str, dtype: str, features: str, resolution: int | None
) -> Features:
    """Return what makes features, float32 [n, D], of n images.

    Args:
        weights: of the model whose image embeddings are the features; None: pixels.
        device: where it runs.
        dtype: of the model.
        features: `pixels`, or what the weights are called.
        resolution: side of the square of pixels.

    Raises:
        UserError: they are unknown, or do not go together.
    """
    if features == PIXELS:
        if weights is not None:
            raise UserError(
                "features=pixels needs no weights: leave --weights out, or say --set"
                " features=embedding for the image embeddings of that model."
            )
        return Pixels(resolution or SIDE)
    if weights is None:
        raise UserError(
            f"features={features!r:.100} is no known model, and no --weights are named. `bench list"
            " backbones linear-probe` shows what is known."
        )
    if resolution is not None:
        raise UserError("--resolution is that of features=pixels; a model has its own.")
    from bench_plugins.backbones._encoder_kinds import kind_of
    from bench_plugins.backbones._encoders import Encoder

    return Encoder(weights, kind_of(weights), device, dtype).images


def check_features(
    weights: Weights | None, dtype: str, features: str, resolution: int | None
) -> None:
    """Refuse features that cannot be made; reads no tensor.

    Raises:
        UserError: as `make_features`.
    """
    make_features(weights, "cpu", dtype, features, resolution)
