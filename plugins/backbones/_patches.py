"""What SigLIP 2 NaFlex is fed: a picture in its own aspect ratio, as a list of square patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.inputs.weights import Weights
from bench_plugins.backbones._configs import is_whole
from bench_plugins.backbones._preprocessing import read_pixels, read_steps

MOST = 16_384  # patches that a file may ask for; the published models take 256
BILINEAR = int(Image.Resampling.BILINEAR)
PRECISION = 1e-5  # of the scale; transformers' own, so that sizes are the same


@dataclass(frozen=True)
class Patching:
    """How a picture becomes patches.

    Attributes:
        patch: side of a patch in pixels.
        most: patches that a picture is padded to; it is resized to have at most so many.
        resample: PIL's filter.
        factor: pixels are multiplied with it.
        mean: [3], subtracted then.
        deviation: [3], divided by then.
    """

    patch: int
    most: int
    resample: int
    factor: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def inputs(self, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
        """Return what the vision network is called with.

        Returns:
            Patches, float32 [n, most, patch² · 3]; which of them are no padding, int64 [n, most];
            and how many there are down and across, int64 [n, 2].
        """
        found = [self._of(image) for image in images]
        patches = np.zeros((len(found), self.most, self.patch**2 * 3), np.float32)
        mask = np.zeros((len(found), self.most), np.int64)
        for row, (values, _) in enumerate(found):
            patches[row, : len(values)], mask[row, : len(values)] = values, 1
        return patches, mask, np.array([shape for _, shape in found], np.int64)

    def _of(self, image: Image.Image) -> tuple[NDArray[np.float32], tuple[int, int]]:
        picture = image.convert("RGB")
        down, across = patches_of(picture.height, picture.width, self.patch, self.most)
        size = across * self.patch, down * self.patch
        picture = picture.resize(size, Image.Resampling(self.resample))
        values: Any = np.asarray(picture, np.float32) * np.float32(self.factor)
        values = values - np.asarray(self.mean, np.float32)
        values = values / np.asarray(self.deviation, np.float32)
        squares = values.reshape(down, self.patch, across, self.patch, 3).swapaxes(1, 2)
        return squares.reshape(down * across, -1), (down, across)


def patches_of(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Return how many patches a picture has down and across, when it is as large as may be.

    Its sides are scaled alike and rounded up to whole patches.
    """

    def scaled(scale: float) -> tuple[int, int]:
        return max(1, ceil(height * scale / patch)), max(1, ceil(width * scale / patch))

    low, high = PRECISION / 10, 100.0
    while high - low >= PRECISION:
        middle = (low + high) / 2
        down, across = scaled(middle)
        low, high = (middle, high) if down * across <= most else (low, middle)
    return scaled(low)


def read_patching(weights: Weights, wanted: Any) -> Patching:
    """Return what the folder says about its pictures.

    Args:
        weights: the model's folder.
        wanted: the side of the patches that the network takes.

    Raises:
        UserError: there is no such file, or it says what is not known here.
    """
    name, config = read_steps(weights)
    patch, most = config.get("patch_size", 16), config.get("max_num_patches", 256)
    if not is_whole(patch) or patch != wanted:
        raise weights.error(
            name, f"says patch_size {patch!r:.20}; the network takes {wanted!r:.20}"
        )
    if not is_whole(most) or not 1 <= most <= MOST:
        raise weights.error(name, f"says max_num_patches {most!r:.20}; 1 to {MOST} are possible")
    return Patching(patch, most, *read_pixels(weights, name, config, BILINEAR))
