"""The contracts of datasets, of images and of items, and of views, as tests."""

from collections.abc import Callable
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from bench.contracts.dataset import n_answers
from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.engine.images import CheckedViews
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import decode
from bench.inputs.split import Split

N_DECODED = 20  # number of samples per split whose images are decoded
SEEDS = ("one", "another")  # ids of images, from which the seeds of views are derived
T = TypeVar("T")
Splits = dict[str | None, Split]  # by the name that was asked for; None: the default split


def once(owner: type, make: Callable[[], T]) -> T:
    """Return the result of `make`, called once per test class: loading a model takes seconds."""
    if "_made" not in vars(owner):
        owner._made = make()  # type: ignore[attr-defined]
    made: T = vars(owner)["_made"]
    return made


def pictures(side: int = 48) -> list[Image.Image]:
    """Return five random images of different sizes and modes (RGB and greyscale)."""
    rng = np.random.default_rng(0)
    shapes = [(side, side, 3), (side // 2, side, 3), (2 * side, side, 3), (side, side), (7, 9, 3)]
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


class Contract:
    """What the contracts of classes have in common."""

    def make(self) -> Any:
        """Return the object to test."""
        raise NotImplementedError


class SplitsContract:
    """Tests that `DatasetContract` and `ItemsContract` have in common."""

    dataset: str | DatasetSpec  # registered name or spec
    splits: tuple[str | None, ...] = (None,)  # splits to check; None: the default split
    data_dir: str | None = None  # local copy of the data, if the dataset needs one

    @pytest.fixture
    def spec(self) -> DatasetSpec:
        """The dataset's spec."""
        if isinstance(self.dataset, DatasetSpec):
            return self.dataset
        return load_plugins().datasets.get(self.dataset)

    @pytest.fixture
    def loaded(self, spec: DatasetSpec) -> Splits:
        """Every split, loaded and validated as in a run."""
        source = DataSource(spec, self.data_dir)
        return once(type(self), lambda: {name: load_split(source, name) for name in self.splits})

    def test_ids_are_unique_and_stay(self, spec: DatasetSpec, loaded: Splits) -> None:
        """Ids and fingerprint are the same when loaded again, so that a run can be resumed."""
        for name, split in loaded.items():
            again = load_split(DataSource(spec, self.data_dir), name)
            assert len(set(split.sample_ids)) == len(split.sample_ids)
            assert list(again.sample_ids) == list(split.sample_ids)
            assert again.fingerprint == split.fingerprint

    def test_splits_are_as_declared(self, spec: DatasetSpec, loaded: Splits) -> None:
        """Sizes and classes equal those in the spec, if it states them."""
        for split in loaded.values():
            assert spec.splits.get(split.split) in (None, len(split.sample_ids))
            assert spec.classes in (None, split.classes)
            assert len(split.classes) == len(set(split.classes))

    def test_images_open(self, loaded: Splits) -> None:
        """Images of any size and mode can be decoded, and labels are those of the rows."""
        for split in loaded.values():
            step = max(1, len(split.sample_ids) // N_DECODED)
            for sample in split.samples(list(split.sample_ids)[::step]):
                label = split.labels[split.row_of[sample.sample_id]]
                assert sample.item is not None or sample.label == label
                for image in sample.images:
                    assert np.asarray(decode(image).convert("RGB")).ndim == 3

    def test_splits_share_no_sample(self, loaded: Splits) -> None:
        """Splits are disjoint, so that settings are not chosen on test samples."""
        for (name, split), (other_name, other) in combinations(loaded.items(), 2):
            shared = set(split.sample_ids) & set(other.sample_ids)
            assert not shared, f"{name} and {other_name} share {sorted(shared)[:3]}"


class DatasetContract(SplitsContract):
    """Tests of a dataset of images; subclass it and set `dataset`."""

    def test_labels_are_indices_of_classes(self, loaded: Splits) -> None:
        """Every label is the index of a class."""
        for split in loaded.values():
            assert set(split.labels) <= set(range(len(split.classes)))


class ItemsContract(SplitsContract):
    """Tests of a dataset of items; subclass it and set `dataset`."""

    def test_answers_are_among_the_candidates(self, loaded: Splits) -> None:
        """An item's texts are in the pool of all texts, and its answer is one of its candidates."""
        for split in loaded.values():
            pool = split.collect_texts(split.sample_ids)
            assert len(set(pool.texts)) == len(pool.texts)
            for sample in split.samples(split.sample_ids, pool):
                assert sample.item is not None
                texts = [pool.texts[text] for text in sample.item.texts]
                row = split.rows[split.row_of[sample.sample_id]]
                assert texts == list(row["texts"])
                assert 0 <= sample.label < n_answers(*sample.item.shape)


class ViewsContract(Contract):
    """Tests of views; subclass it and define `make`."""

    @pytest.fixture
    def views(self) -> CheckedViews:
        """The views, validated as in a run."""
        views = CheckedViews(self.make(), "the views")
        if views.of_latents:
            pytest.skip("the views are samples of the latent, which the toolkit draws")
        return views

    def test_an_image_has_its_views(self, views: CheckedViews) -> None:
        """An image of any size and mode has `count` views, none of them empty."""
        for image in pictures():
            assert all(min(view.size) > 0 for view in views.of(image, 0, SEEDS[0]))

    def test_the_seed_decides(self, views: CheckedViews) -> None:
        """The same seed gives the same views, also after views with another seed."""
        image = pictures()[0]
        first = views.of(image, 0, SEEDS[0])
        views.of(image, 0, SEEDS[1])
        for view, again in zip(first, views.of(image, 0, SEEDS[0]), strict=True):
            assert np.array_equal(np.asarray(view), np.asarray(again))

    def test_the_image_stays_as_it_is(self, views: CheckedViews) -> None:
        """Making views does not change the image."""
        for image in pictures():
            copy: Image.Image = image.copy()
            views.of(image, 0, SEEDS[0])
            assert np.array_equal(np.asarray(image), np.asarray(copy))
