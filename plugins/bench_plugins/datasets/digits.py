"""scikit-learn's handwritten digits, read without importing the package, which takes a second."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from bench.contracts.dataset import Listing, Row

# Row indices of the 360 `test` images: 20 %, stratified, chosen by scikit-learn's
# `train_test_split` with random_state=0. They never change.
TEST = Path(__file__).with_name("digits_test.txt")


class Digits:
    """1,797 real digits of 43 writers (the test part of UCI's Optical Recognition set)."""

    def load(self, split: str | None, data_dir: str | None) -> Listing:
        """Return a split: 360 images for `test`, the others for `train`.

        The sample ids are positions in scikit-learn's array. `data_dir` is ignored.
        """
        return _split(split)


@cache
def _split(split: str | None) -> Listing:
    """Return a split. Cached because a study loads it for every run."""
    file = _file()
    table = _read(file)
    labels = table[:, -1].astype(int)
    rows = np.loadtxt(TEST.read_text().split(), dtype=int)
    if split != "test":  # `train`
        rows = np.setdiff1d(np.arange(len(table)), rows)
    pixels = np.round(table[rows, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    encode = datasets.Image().encode_example
    listed = [
        Row(f"digit-{row:04d}", encode(Image.fromarray(image, mode="L")), str(label))
        for row, image, label in zip(rows, pixels, labels[rows].tolist(), strict=True)
    ]
    # Hashes of the images are cached as long as these files do not change.
    files = () if file is None else (str(file), str(TEST), __file__)
    return Listing(listed, split, class_names=lambda: tuple("0123456789"), files=files)


def _file() -> Path | None:
    package = find_spec("sklearn")
    folders = (package and package.submodule_search_locations) or ()
    files = [Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _read(file: Path | None) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return float64 [1797, 65]: 64 pixels from 0 to 16, and the label."""
    if file is not None:
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    return np.column_stack([data, target])
