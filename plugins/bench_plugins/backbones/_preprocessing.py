"""Preprocess images for CLIP, SigLIP and DINOv2 as described by `preprocessor_config.json`.

This uses PIL and numpy, because the classes in transformers resize with PIL in some versions and
with torchvision in others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.inputs.weights import Weights
from bench_plugins.backbones._configs import is_number, is_whole

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # newer transformers write all preprocessing to this file
PROCESSOR_KEY = "image_processor"  # its key for images
STEPS = ("do_resize", "do_rescale", "do_normalize")
MAX_SIDE = 4096  # pixels


@dataclass(frozen=True)
class PixelValues:
    """How images are resized and their pixels normalised: (factor · pixel − mean) / deviation."""

    filter: Image.Resampling
    factor: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def values(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the normalised pixels of an RGB image, float32 [H, W, 3]."""
        values: Any = np.asarray(image, np.float32) * np.float32(self.factor)
        values = values - np.asarray(self.mean, np.float32)
        return np.asarray(values / np.asarray(self.deviation, np.float32))


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing to a fixed size: the `crop` (height, width) at the centre of the resized image.

    `shorter` is the length of the shorter side before the crop. None resizes to `crop`, without
    keeping the aspect ratio.
    """

    shorter: int | None
    crop: tuple[int, int]
    pixels: PixelValues

    def inputs(self, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
        """Return the arguments of the vision network: pixel values, float32 [n, 3, H, W]."""
        return (np.stack([self._prepare(image) for image in images]),)

    def _prepare(self, image: Image.Image) -> NDArray[np.float32]:
        rgb = image.convert("RGB")
        height, width = self.crop
        size = (width, height)
        if self.shorter is not None:
            short = min(rgb.size)
            # The longer side is rounded down, as in transformers.
            sides = [self.shorter * side // short for side in rgb.size]
            size = (sides[0], sides[1])
        if rgb.size != size:
            rgb = rgb.resize(size, self.pixels.filter)
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        rgb = rgb.crop((left, top, left + width, top + height))
        values = self.pixels.values(rgb)
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)


def read_preprocessing(weights: Weights, side: int | None) -> Preprocessing:
    """Return the preprocessing described by a folder. Raises UserError if it is not supported.

    `side` is the image side that the network requires; None if it accepts any.
    """
    name, config = read_steps(weights)
    size, crop = config.get("size"), config.get("crop_size")
    sides = size if isinstance(size, Mapping) else {"shortest_edge": size}
    shorter, square = _side(sides.get("shortest_edge")), _height_and_width(sides)
    cropped: tuple[int, int] | None = None
    if config.get("do_center_crop"):
        cropped = _height_and_width(
            crop if isinstance(crop, Mapping) else {"height": crop, "width": crop}
        )
        if cropped is None:
            raise weights.error(name, f"has crop_size {crop!r:.100}; expected height and width")
    if (shorter is None) == (square is None) or (square and cropped not in (None, square)):
        raise weights.error(
            name, f"has size {size!r:.100}; expected shortest_edge, or height and width"
        )
    result = cropped or square
    if result is None or (shorter is not None and shorter < max(result)):
        raise weights.error(
            name, f"crops to {result}, which is larger than the resized image, {size!r:.100}"
        )
    if side is not None and result != (side, side):
        raise weights.error(
            name,
            f"resizes images to {result[0]} × {result[1]}; the network requires {side} × {side}",
        )
    return Preprocessing(shorter, result, read_pixels(weights, name, config, 3))


def read_pixels(
    weights: Weights, name: str, config: Mapping[str, Any], default_filter: int
) -> PixelValues:
    """Return how pixels are normalised, from the content `config` of the file `name`.

    `default_filter` is the number of PIL's filter if the file names none. Raises UserError if a
    value is invalid.
    """
    filters = [int(member) for member in Image.Resampling]
    resample, factor = config.get("resample", default_filter), config.get("rescale_factor", 1 / 255)
    if not is_whole(resample) or resample not in filters or not is_number(factor):
        raise weights.error(
            name,
            f"has resample {resample!r:.20} and rescale_factor {factor!r:.20}; expected a filter of"
            " PIL and a number",
        )
    mean, deviation = (_three(weights, name, config, f"image_{key}") for key in ("mean", "std"))
    return PixelValues(Image.Resampling(resample), float(factor), mean, deviation)


def read_steps(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    """Return the name and content of the file that describes the preprocessing of images.

    Raises UserError if there is none, or it omits a step.
    """
    name, config = _read(weights)
    if missing := [step for step in STEPS if config.get(step) is not True]:
        raise weights.error(name, f"has no {missing[0]}: true, which is required")
    return name, config


def _read(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    if weights.find(PREPROCESSOR) or not weights.find(PROCESSOR):
        return PREPROCESSOR, weights.read(PREPROCESSOR)
    config = weights.read(PROCESSOR).get(PROCESSOR_KEY)
    if not isinstance(config, Mapping):
        raise weights.error(PROCESSOR, f"has no {PROCESSOR_KEY}, and there is no {PREPROCESSOR}")
    return PROCESSOR, config


def _side(value: Any) -> int | None:
    """Return a number of pixels, or None if it is invalid."""
    return value if is_whole(value) and 1 <= value <= MAX_SIDE else None


def _height_and_width(size: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = _side(size.get("height")), _side(size.get("width"))
    return None if height is None or width is None else (height, width)


def _three(weights: Weights, name: str, config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = config.get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(map(is_number, values)):
        raise weights.error(name, f"has {key} {values!r:.60}; expected three numbers")
    if key == "image_std" and not all(value > 0 for value in values):
        raise weights.error(name, f"has {key} {values!r:.60}; expected numbers above 0")
    return tuple(map(float, values))


MAX_PATCHES = 16_384  # the published models take 256
BILINEAR = int(Image.Resampling.BILINEAR)
SCALE_TOLERANCE = 1e-5  # as in transformers, so that sizes are equal


@dataclass(frozen=True)
class Patching:
    """Preprocessing to patches, which keeps the aspect ratio (NaFlex).

    An image is resized to nearly `most` patches with sides of `patch` pixels, and padded to `most`.
    """

    patch: int
    most: int
    pixels: PixelValues

    def inputs(self, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
        """Return patches, a mask with 0 for padding, and the numbers of patches down and across.

        They are float32 [n, most, patch² · 3], int64 [n, most] and int64 [n, 2].
        """
        prepared = [self._prepare(image) for image in images]
        patches = np.zeros((len(prepared), self.most, self.patch**2 * 3), np.float32)
        mask = np.zeros((len(prepared), self.most), np.int64)
        for row, (values, _) in enumerate(prepared):
            patches[row, : len(values)], mask[row, : len(values)] = values, 1
        return patches, mask, np.array([shape for _, shape in prepared], np.int64)

    def _prepare(self, image: Image.Image) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """Return the patches of an image, [down · across, patch² · 3], and (down, across)."""
        rgb = image.convert("RGB")
        down, across = patches_of(rgb.height, rgb.width, self.patch, self.most)
        size = across * self.patch, down * self.patch
        rgb = rgb.resize(size, self.pixels.filter)
        values = self.pixels.values(rgb)
        squares = values.reshape(down, self.patch, across, self.patch, 3).swapaxes(1, 2)
        return squares.reshape(down * across, -1), (down, across)


def patches_of(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Return the numbers of patches down and across for an image of `height` × `width`.

    Both sides are scaled by the largest factor, found by bisection, with which there are at most
    `most` patches, and rounded up to whole patches.
    """

    def scaled(scale: float) -> tuple[int, int]:
        return max(1, ceil(height * scale / patch)), max(1, ceil(width * scale / patch))

    low, high = SCALE_TOLERANCE / 10, 100.0
    while high - low >= SCALE_TOLERANCE:
        middle = (low + high) / 2
        down, across = scaled(middle)
        low, high = (middle, high) if down * across <= most else (low, middle)
    return scaled(low)


def read_patching(weights: Weights, patch_size: Any) -> Patching:
    """Return a folder's preprocessing to patches. Raises UserError if it is not supported."""
    name, config = read_steps(weights)
    patch, most = config.get("patch_size", 16), config.get("max_num_patches", 256)
    if not is_whole(patch) or patch != patch_size:
        raise weights.error(
            name, f"has patch_size {patch!r:.20}; the network requires {patch_size!r:.20}"
        )
    if not is_whole(most) or not 1 <= most <= MAX_PATCHES:
        raise weights.error(
            name, f"has max_num_patches {most!r:.20}; expected 1 to {MAX_PATCHES:,}"
        )
    return Patching(patch, most, read_pixels(weights, name, config, BILINEAR))
