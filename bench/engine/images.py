"""From pictures to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

MOST_PIXELS = 2**27  # of a resized image before its middle is cut out; 400 MB
# `half` is what Stable Diffusion's VAE was trained on. `cifar10` repeats the published UC Merced
# notebook, which normalised with CIFAR-10's statistics and so left the VAE's range.
NORMALIZATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
}


def resize_and_crop(image: Image.Image, resolution: int) -> Image.Image:
    """Return RGB [resolution, resolution]: shorter side by PIL's bicubic on uint8, centre crop.

    Rounds as torchvision's Resize and CenterCrop do, which the reference implementation uses. Of
    an image so long that its resized whole would be large, only the middle is resized.
    """
    image = image.convert("RGB")
    short = min(image.size)
    width, height = (resolution * side // short for side in image.size)
    if width * height > MOST_PIXELS:
        left, top = ((side - short) / 2 for side in image.size)
        box = (left, top, left + short, top + short)
        return image.resize((resolution, resolution), Image.Resampling.BICUBIC, box)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    return image.crop((left, top, left + resolution, top + resolution))


def squash(image: Image.Image, resolution: int) -> Image.Image:
    """Return RGB [resolution, resolution]: the whole image by PIL's bicubic, in no proportion."""
    return image.convert("RGB").resize((resolution, resolution), Image.Resampling.BICUBIC)


def preprocess(
    images: Sequence[Image.Image], resolution: int, normalize: str = "half"
) -> torch.Tensor:
    """Return pixels, float32 [n, 3, resolution, resolution], in [-1, 1] for `half`."""
    pixels = np.stack([np.asarray(resize_and_crop(image, resolution)) for image in images])
    mean, std = (np.asarray(v, np.float32) for v in NORMALIZATIONS[normalize])
    scaled: NDArray[np.float32] = (pixels.astype(np.float32) / 255.0 - mean) / std
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()
