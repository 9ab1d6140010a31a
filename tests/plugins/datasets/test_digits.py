"""The digits are scikit-learn's, split as it splits them, and read without importing it."""

from hashlib import sha256

import numpy as np
import pytest
from helpers.command import imported_by
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bench.inputs.rows import as_dataset
from bench_plugins.datasets import digits
from bench_plugins.datasets.digits import Digits

# Results under this name stand on these ids.
IDS = {"test": "bceab26e", "train": "b5c84a54"}


def test_the_splits_are_those_that_scikit_learn_makes() -> None:
    data = load_digits()
    train, test = train_test_split(
        np.arange(len(data.target)), test_size=360, stratify=data.target, random_state=0
    )
    for split, rows in (("test", np.sort(test)), ("train", np.sort(train))):
        made = as_dataset(Digits().load(split, None))
        assert list(made["sample_id"]) == [f"digit-{row:04d}" for row in rows]
        assert list(made["label"]) == data.target[rows].tolist()
        pixels = np.round(data.images[rows[:20]] * (255 / 16)).astype(np.uint8)
        assert sha256(" ".join(made["sample_id"]).encode()).hexdigest()[:8] == IDS[split]
        shown = [np.asarray(row["image"]) for row in made.select(range(20))]
        assert np.array_equal(shown, pixels)


def test_a_version_that_keeps_the_file_elsewhere_is_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = digits._file()
    assert file is not None and np.array_equal(digits._read(None), digits._read(file))
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    assert digits._file() is None


@pytest.mark.long
def test_loading_them_imports_no_scikit_learn() -> None:
    code = "from bench_plugins.datasets.digits import Digits; Digits().load('test', None)"
    assert not imported_by(code) & {"sklearn", "scipy", "torch"}
