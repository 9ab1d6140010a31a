"""Prepare images for CLIP, SigLIP and DINOv2 with transformers' processor, as a folder describes.

Of its classes the one that resizes with PIL is used, so that equal ids mean equal numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from PIL import Image

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import first_line
from bench_plugins.backbones._configs import numbers

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # newer transformers write all preprocessing to this file
PROCESSOR_KEY = "image_processor"  # its key for images
STEPS = ("do_resize", "do_rescale", "do_normalize")
SIZES = ("size", "crop_size", "patch_size", "max_num_patches")
MAX_SIZE = 4096  # pixels or patches
ARGUMENTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")  # of the vision network


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing by an image processor of transformers."""

    processor: Any

    def inputs(self, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
        """Return the arguments of the vision network: pixel values, float32 [n, 3, H, W].

        Those of NaFlex, which keeps the aspect ratio, are patches, float32 [n, L, D], a mask with 0
        for padding, [n, L], and the numbers of patches down and across, [n, 2].
        """
        rgb = [image.convert("RGB") for image in images]
        # The layout of an image of one pixel would be guessed.
        prepared = self.processor(rgb, input_data_format="channels_last")
        return tuple(np.stack(prepared[name]) for name in ARGUMENTS if name in prepared)


def read_preprocessing(weights: Weights, kind: str, shape: tuple[int, ...]) -> Preprocessing:
    """Return the preprocessing described by a folder, by an image processor of class `kind`.

    `shape` is what the network requires of the last axes of its first argument. Raises UserError if
    the preprocessing is incomplete, fails for an image, or does not fit.
    """
    name, config = _read(weights)
    if missing := [step for step in STEPS if config.get(step) is not True]:
        raise weights.error(name, f"has no {missing[0]}: true, which is required")
    sizes = {key: config[key] for key in SIZES if config.get(key) is not None}
    if wrong := [number for _, number in numbers(sizes) if not 1 <= number <= MAX_SIZE]:
        raise weights.error(name, f"has a size of {wrong[0]!r:.40}; expected 1 to {MAX_SIZE:,}")
    processor_cls = getattr(transformers, f"{kind}ImageProcessorPil", None)
    processor_cls = processor_cls or getattr(transformers, f"{kind}ImageProcessor")
    try:
        preprocessing = Preprocessing(processor_cls.from_dict(dict(config)))
        plain = [Image.new("RGB", (64, 48), colour) for colour in ("white", "black")]
        with np.errstate(all="ignore"):  # values are checked below
            values, *_ = preprocessing.inputs(plain)
    except Exception as error:  # whatever the library raises for missing or invalid values
        raise weights.error(name, f"cannot be used: {first_line(error)}") from error
    if values.shape[values.ndim - len(shape) :] != shape:
        raise weights.error(
            name, f"prepares images as {values.shape[1:]}; the network requires {shape}"
        )
    white, black = values[:, 0] if len(shape) == 1 else values  # later patches may be padding
    if not (np.isfinite(values).all() and (white > black).all()):
        raise weights.error(
            name,
            "does not keep white lighter than black: the image is padded, because crop_size is"
            " larger than size, or a rescale_factor, image_mean or image_std is out of range",
        )
    return preprocessing


def _read(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    if weights.find(PREPROCESSOR) or not weights.find(PROCESSOR):
        return PREPROCESSOR, weights.read(PREPROCESSOR)
    config = weights.read(PROCESSOR).get(PROCESSOR_KEY)
    if not isinstance(config, Mapping):
        raise weights.error(PROCESSOR, f"has no {PROCESSOR_KEY}, and there is no {PREPROCESSOR}")
    return PROCESSOR, config
