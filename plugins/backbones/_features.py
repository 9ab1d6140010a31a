"""Features of images for the classifiers that learn."""

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

    Raises:
        UserError: as `check_features`.
    """
    check_features(weights, dtype, features, resolution)
    return Pixels(resolution or SIDE)


def check_features(
    weights: Weights | None, dtype: str, features: str, resolution: int | None
) -> None:
    """Refuse features that cannot be made.

    Raises:
        UserError: they are unknown, or weights are named that they do not use.
    """
    if features != PIXELS:
        raise UserError(f"features={features!r:.100}: pixels is what is known.")
    if weights is not None:
        raise UserError("features=pixels needs no weights; leave --weights out.")
