"""scikit-learn's handwritten digits, read from its file: importing the package takes a second."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from bench_plugins.datasets._columns import labelled_images

# Places of the 360 images of `test`, 20 % stratified: `train_test_split` of scikit-learn chose them
# with random_state=0, and they are fixed for good.
TEST = Path(__file__).with_name("digits_test.txt")


class Digits:
    """1,797 real digits of 43 writers (the test part of UCI's Optical Recognition set)."""

    def load(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split: 360 images for `test`, the others for `train`.

        The sample ids say the position in scikit-learn's array, which needs no `data_dir`.
        """
        table = _table()
        labels = table[:, -1].astype(int)
        rows = np.loadtxt(TEST.read_text().split(), dtype=int)
        if split != "test":
            rows = np.setdiff1d(np.arange(len(table)), rows)
        pixels = np.round(table[rows, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        images = [Image.fromarray(image, mode="L") for image in pixels]
        ids = [f"digit-{row:04d}" for row in rows]
        classes = datasets.ClassLabel(names=[str(digit) for digit in range(10)])
        return labelled_images(images, labels[rows].tolist(), ids, classes, split)


def _table() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return float64 [1797, 65]: 64 pixels from 0 to 16, and the label."""
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        if (file := Path(folder, "datasets", "data", "digits.csv.gz")).is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # a version that keeps the file elsewhere

    data, target = load_digits(return_X_y=True)
    return np.column_stack([data, target])
