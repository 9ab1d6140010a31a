"""How far two corruptions are from ImageNet-C's: the authors' functions on the same images.

    python benchmarks/corruptions.py ucmerced --data-dir ../shared/data/ucmerced

It needs OpenCV (`pip install opencv-python-headless`). `theirs` are `zoom_blur` and `defocus_blur`
of `make_imagenet_c.py` (Hendrycks & Dietterich, ICLR 2019), whose images are then truncated to
whole grey levels; those of bench are rounded.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom

import bench
from bench.inputs.corruptions import CORRUPTED_SIDE, CORRUPTIONS

cv2: Any = importlib.import_module("cv2")  # not a dependency of the toolkit
Pixels = NDArray[np.floating[Any]]  # [H, W, 3] in [0, 1]


def zoom_blur(x: Pixels, constants: tuple[float, float]) -> Pixels:
    """Return the image blurred as theirs: each zoom is of a crop of whole pixels."""
    factors = np.arange(1, *constants)
    return (x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1)


def clipped_zoom(x: Pixels, factor: float) -> Pixels:
    """Return the middle of the image, enlarged to its size."""
    side = x.shape[0]
    kept = int(np.ceil(side / factor))
    top = (side - kept) // 2
    larger = zoom(x[top : top + kept, top : top + kept], (factor, factor, 1), order=1)
    trim = (larger.shape[0] - side) // 2
    middle: Pixels = larger[trim : trim + side, trim : trim + side]
    return middle


def defocus_blur(x: Pixels, constants: tuple[int, float]) -> Pixels:
    """Return the image blurred as theirs: the sum of a disk that fills its array is above 1."""
    radius, sigma = constants
    place = np.arange(-max(8, radius), max(8, radius) + 1)
    disk = np.array(place**2 + place[:, None] ** 2 <= radius**2, np.float32)
    size = (3, 3) if radius <= 8 else (5, 5)
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=size, sigmaX=sigma)
    return np.stack([cv2.filter2D(x[..., c], -1, kernel) for c in range(3)], axis=-1)


THEIRS: dict[str, Callable[[Pixels, Any], Pixels]] = {
    "zoom-blur": zoom_blur,
    "defocus-blur": defocus_blur,
}


def main() -> None:
    """Print the mean absolute differences in grey levels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=42)
    options = parser.parse_args()
    rows = bench.load_dataset(options.dataset, data_dir=options.data_dir)
    chosen = np.linspace(0, len(rows) - 1, options.images).astype(int).tolist()
    side = (CORRUPTED_SIDE, CORRUPTED_SIDE)
    pictures = [
        rows[i]["image"].convert("RGB").resize(side, Image.Resampling.BICUBIC) for i in chosen
    ]
    images = [np.asarray(picture) / 255 for picture in pictures]
    print(f"{len(images)} images of {options.dataset}, OpenCV {cv2.__version__}")
    for name, theirs in THEIRS.items():
        ours, constants = CORRUPTIONS[name]
        for severity, value in enumerate(constants, start=1):
            random = np.random.default_rng(0)
            made = [(255 * ours(x, random, value), 255 * theirs(x, value)) for x in images]
            blur = np.mean([np.abs(a.clip(0, 255) - b.clip(0, 255)).mean() for a, b in made])
            stored = np.mean(
                [
                    np.abs(np.round(a.clip(0, 255)) - np.floor(b.clip(0, 255))).mean()
                    for a, b in made
                ]
            )
            print(f"{name}:{severity}  {blur:.1f} grey levels, {stored:.1f} as stored")


if __name__ == "__main__":
    main()
