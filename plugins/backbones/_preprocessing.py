"""What CLIP, SigLIP and DINOv2 are fed: the original picture, prepared as their folder says.

It is done with PIL and numpy, as `preprocessor_config.json` says, and not with the libraries' own
classes: those resize with PIL in some versions and with torchvision in others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.inputs.weights import Weights
from bench_plugins.backbones._configs import is_number, is_whole

FILE = "preprocessor_config.json"
WHOLE = "processor_config.json"  # newer versions of transformers write the parts into one file
KEY = "image_processor"
STEPS = ("do_resize", "do_rescale", "do_normalize")
LARGEST = 4096  # a side


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input.

    Attributes:
        shorter: what the shorter side is resized to; None: the whole is squeezed into `crop`.
        crop: height and width of the result.
        resample: PIL's filter.
        factor: pixels are multiplied with it.
        mean: [3], subtracted then.
        deviation: [3], divided by then.
    """

    shorter: int | None
    crop: tuple[int, int]
    resample: int
    factor: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return the input, float32 [n, 3, H, W]."""
        return np.stack([self._of(image) for image in images])

    def inputs(self, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
        """Return what the vision network is called with."""
        return (self(images),)

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
            picture = picture.resize(size, Image.Resampling(self.resample))
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        picture = picture.crop((left, top, left + width, top + height))
        values: Any = np.asarray(picture, np.float32) * np.float32(self.factor)
        values = values - np.asarray(self.mean, np.float32)
        values = values / np.asarray(self.deviation, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)


def read_preprocessing(weights: Weights, wanted: int | None) -> Preprocessing:
    """Return what the folder says about its pictures.

    Args:
        weights: the model's folder.
        wanted: the side that the network takes; None: any.

    Raises:
        UserError: there is no such file, or it says what is not known here.
    """
    name, config = read_steps(weights)
    size, crop = config.get("size"), config.get("crop_size")
    shorter, square = _whole(size), None
    if isinstance(size, Mapping):
        shorter, square = _whole(size.get("shortest_edge")), _pair(size)
    cropped: tuple[int, int] | None = None
    if config.get("do_center_crop"):
        cropped = _pair(crop) if isinstance(crop, Mapping) else _twice(_whole(crop))
        if cropped is None:
            raise weights.error(name, f"says crop_size {crop!r:.100}; height and width are wanted")
    if (shorter is None) == (square is None) or (square and cropped not in (None, square)):
        raise weights.error(name, f"says size {size!r:.100}; shortest_edge, or height and width")
    result = cropped or square
    if result is None or (shorter is not None and shorter < max(result)):
        raise weights.error(name, f"crops {result} from pictures of size {size!r:.100}")
    if wanted is not None and result != (wanted, wanted):
        raise weights.error(
            name, f"makes pictures of {result[0]} × {result[1]}; the network takes {wanted}"
        )
    return Preprocessing(shorter, result, *read_pixels(weights, name, config, 3))


def read_pixels(
    weights: Weights, name: str, config: Mapping[str, Any], usual: int
) -> tuple[int, float, tuple[float, ...], tuple[float, ...]]:
    """Return PIL's filter, the factor, and the mean and deviation of the colours.

    Args:
        weights: the model's folder.
        name: of the file.
        config: what it says.
        usual: the filter of the library's class, for a file that names none.

    Raises:
        UserError: one of them is not what it should be.
    """
    filters = [int(one) for one in Image.Resampling]
    resample, factor = config.get("resample", usual), config.get("rescale_factor", 1 / 255)
    if not is_whole(resample) or resample not in filters or not is_number(factor):
        raise weights.error(name, f"says resample {resample!r:.20}, rescale_factor {factor!r:.20}")
    mean, deviation = (_three(weights, name, config, f"image_{key}") for key in ("mean", "std"))
    return resample, float(factor), mean, deviation


def read_steps(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the content of the file that says how pictures are prepared.

    Raises:
        UserError: there is none, or it leaves a step out.
    """
    name, config = _read(weights)
    if missing := [step for step in STEPS if config.get(step) is not True]:
        raise weights.error(name, f"does not say {missing[0]}: true, which this kind needs")
    return name, config


def _read(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    if weights.find(FILE) or not weights.find(WHOLE):
        return FILE, weights.read(FILE)
    config = weights.read(WHOLE).get(KEY)
    if not isinstance(config, Mapping):
        raise weights.error(WHOLE, f"has no {KEY}, and there is no {FILE}")
    return WHOLE, config


def _whole(value: Any) -> int | None:
    return value if is_whole(value) and 1 <= value <= LARGEST else None


def _pair(size: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = _whole(size.get("height")), _whole(size.get("width"))
    return None if height is None or width is None else (height, width)


def _twice(side: int | None) -> tuple[int, int] | None:
    return None if side is None else (side, side)


def _three(weights: Weights, name: str, config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = config.get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(map(is_number, values)):
        raise weights.error(name, f"says {key} {values!r:.60}; three numbers are wanted")
    if key == "image_std" and not all(value > 0 for value in values):
        raise weights.error(name, f"says {key} {values!r:.60}; they must be above 0")
    return tuple(map(float, values))
