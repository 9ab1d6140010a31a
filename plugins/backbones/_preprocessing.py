"""Preparation of pictures for CLIP, SigLIP and DINOv2, as `preprocessor_config.json` describes it.

It uses PIL and numpy and not the libraries' own classes, which resize with PIL in some versions and
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
WHOLE = "processor_config.json"  # in it, newer versions of transformers write all parts
PROCESSOR_KEY = "image_processor"
PREPARATION = ("do_resize", "do_rescale", "do_normalize")
MAX_SIDE = 4096  # pixels


@dataclass(frozen=True)
class PixelValues:
    """How pixels become numbers.

    Attributes:
        filter: the filter for resizing.
        factor: multiplies pixels.
        mean: [3], is subtracted then.
        deviation: [3], divides the difference.
    """

    filter: Image.Resampling
    factor: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def values(self, picture: Image.Image) -> NDArray[np.float32]:
        """Return float32 [H, W, 3]."""
        values: Any = np.asarray(picture, np.float32) * np.float32(self.factor)
        values = values - np.asarray(self.mean, np.float32)
        return np.asarray(values / np.asarray(self.deviation, np.float32))


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input.

    Attributes:
        shorter: length of the resized shorter side; None: the whole is squeezed into `crop`.
        crop: height and width of the result.
    """

    shorter: int | None
    crop: tuple[int, int]
    pixels: PixelValues

    def inputs(self, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
        """Return the arguments of the vision network: float32 [n, 3, H, W]."""
        return (np.stack([self._of(image) for image in images]),)

    def _of(self, image: Image.Image) -> NDArray[np.float32]:
        picture = image.convert("RGB")
        height, width = self.crop
        size = (width, height)
        if self.shorter is not None:
            short = min(picture.size)
            # The longer side is cut to a whole number, as transformers does.
            sides = [self.shorter * side // short for side in picture.size]
            size = (sides[0], sides[1])
        if picture.size != size:
            picture = picture.resize(size, self.pixels.filter)
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        picture = picture.crop((left, top, left + width, top + height))
        values = self.pixels.values(picture)
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)


def read_preprocessing(weights: Weights, wanted: int | None) -> Preprocessing:
    """Return the preparation that a folder describes.

    Raises:
        UserError: there is no such file, or its preparation is not known here.
    """
    name, config = read_steps(weights)
    size, crop = config.get("size"), config.get("crop_size")
    sides = size if isinstance(size, Mapping) else {"shortest_edge": size}
    shorter, square = _whole(sides.get("shortest_edge")), _pair(sides)
    cropped: tuple[int, int] | None = None
    if config.get("do_center_crop"):
        cropped = _pair(crop if isinstance(crop, Mapping) else {"height": crop, "width": crop})
        if cropped is None:
            raise weights.error(name, f"has crop_size {crop!r:.100}; expected height and width")
    if (shorter is None) == (square is None) or (square and cropped not in (None, square)):
        raise weights.error(name, f"has size {size!r:.100}; shortest_edge, or height and width")
    result = cropped or square
    if result is None or (shorter is not None and shorter < max(result)):
        raise weights.error(name, f"crops {result} from pictures of size {size!r:.100}")
    if wanted is not None and result != (wanted, wanted):
        raise weights.error(
            name, f"makes pictures of {result[0]} × {result[1]}; the network takes {wanted}"
        )
    return Preprocessing(shorter, result, read_pixels(weights, name, config, 3))


def read_pixels(weights: Weights, name: str, config: Mapping[str, Any], usual: int) -> PixelValues:
    """Return how pixels become numbers; `usual` is the filter if the file names none.

    Raises:
        UserError: a value is not possible.
    """
    filters = [int(each_filter) for each_filter in Image.Resampling]
    resample, factor = config.get("resample", usual), config.get("rescale_factor", 1 / 255)
    if not is_whole(resample) or resample not in filters or not is_number(factor):
        raise weights.error(name, f"has resample {resample!r:.20}, rescale_factor {factor!r:.20}")
    mean, deviation = (_three(weights, name, config, f"image_{key}") for key in ("mean", "std"))
    return PixelValues(Image.Resampling(resample), float(factor), mean, deviation)


def read_steps(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    """Return name and content of the file that describes the preparation of pictures.

    Raises:
        UserError: there is none, or it leaves out a step.
    """
    name, config = _read(weights)
    if missing := [step for step in PREPARATION if config.get(step) is not True]:
        raise weights.error(name, f"does not say {missing[0]}: true, which this kind needs")
    return name, config


def _read(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    if weights.find(PREPROCESSOR) or not weights.find(WHOLE):
        return PREPROCESSOR, weights.read(PREPROCESSOR)
    config = weights.read(WHOLE).get(PROCESSOR_KEY)
    if not isinstance(config, Mapping):
        raise weights.error(WHOLE, f"has no {PROCESSOR_KEY}, and there is no {PREPROCESSOR}")
    return WHOLE, config


def _whole(value: Any) -> int | None:
    return value if is_whole(value) and 1 <= value <= MAX_SIDE else None


def _pair(size: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = _whole(size.get("height")), _whole(size.get("width"))
    return None if height is None or width is None else (height, width)


def _three(weights: Weights, name: str, config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = config.get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(map(is_number, values)):
        raise weights.error(name, f"has {key} {values!r:.60}; expected three numbers")
    if key == "image_std" and not all(value > 0 for value in values):
        raise weights.error(name, f"has {key} {values!r:.60}; they must be above 0")
    return tuple(map(float, values))


MAX_PATCHES = 16_384  # the published models take 256
BILINEAR = int(Image.Resampling.BILINEAR)
SIZE_TOLERANCE = 1e-5  # of the scale; transformers' own, so that sizes are the same


@dataclass(frozen=True)
class Patching:
    """How a picture becomes patches.

    Attributes:
        patch: side of a patch in pixels.
        most: largest number of patches, to which a picture is resized and padded.
    """

    patch: int
    most: int
    pixels: PixelValues

    def inputs(self, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
        """Return the arguments of the vision network.

        Returns:
            Patches, float32 [n, most, patch² · 3]; 1 where they are no padding, int64 [n, most];
            and their numbers down and across, int64 [n, 2].
        """
        pictures = [self._of(image) for image in images]
        patches = np.zeros((len(pictures), self.most, self.patch**2 * 3), np.float32)
        mask = np.zeros((len(pictures), self.most), np.int64)
        for row, (values, _) in enumerate(pictures):
            patches[row, : len(values)], mask[row, : len(values)] = values, 1
        return patches, mask, np.array([shape for _, shape in pictures], np.int64)

    def _of(self, image: Image.Image) -> tuple[NDArray[np.float32], tuple[int, int]]:
        picture = image.convert("RGB")
        down, across = patches_of(picture.height, picture.width, self.patch, self.most)
        size = across * self.patch, down * self.patch
        picture = picture.resize(size, self.pixels.filter)
        values = self.pixels.values(picture)
        squares = values.reshape(down, self.patch, across, self.patch, 3).swapaxes(1, 2)
        return squares.reshape(down * across, -1), (down, across)


def patches_of(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Return the numbers of patches down and across, `most` together or few less.

    The picture's sides are scaled alike and rounded up to whole patches.
    """

    def scaled(scale: float) -> tuple[int, int]:
        return max(1, ceil(height * scale / patch)), max(1, ceil(width * scale / patch))

    low, high = SIZE_TOLERANCE / 10, 100.0
    while high - low >= SIZE_TOLERANCE:
        middle = (low + high) / 2
        down, across = scaled(middle)
        low, high = (middle, high) if down * across <= most else (low, middle)
    return scaled(low)


def read_patching(weights: Weights, wanted: Any) -> Patching:
    """Return the preparation that a folder describes.

    Raises:
        UserError: there is no such file, or its preparation is not known here.
    """
    name, config = read_steps(weights)
    patch, most = config.get("patch_size", 16), config.get("max_num_patches", 256)
    if not is_whole(patch) or patch != wanted:
        raise weights.error(name, f"has patch_size {patch!r:.20}; the network takes {wanted!r:.20}")
    if not is_whole(most) or not 1 <= most <= MAX_PATCHES:
        raise weights.error(
            name, f"has max_num_patches {most!r:.20}; 1 to {MAX_PATCHES} are possible"
        )
    return Patching(patch, most, read_pixels(weights, name, config, BILINEAR))
