"""scikit-learn's handwritten digits."""

from __future__ import annotations

import datasets
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bench_plugins.datasets._columns import labelled_images


class Digits:
    """1,797 real digits of 43 writers (the test part of UCI's Optical Recognition set)."""

    def load(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split: 20 % stratified for `test` (360 images), fixed for good.

        The sample ids say the position in scikit-learn's array, which needs no `data_dir`.
        """
        digits = load_digits()
        train, test = train_test_split(
            np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0
        )
        rows = np.sort(test if split == "test" else train)
        pixels = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)
        images = [Image.fromarray(image, mode="L") for image in pixels]
        ids = [f"digit-{row:04d}" for row in rows]
        classes = datasets.ClassLabel(names=[str(digit) for digit in range(10)])
        return labelled_images(images, digits.target[rows].tolist(), ids, classes, split)
