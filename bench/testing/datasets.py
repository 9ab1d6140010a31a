"""The contracts of datasets of images and of items, as tests."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from bench.contracts.dataset import n_answers
from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import decode
from bench.inputs.split import Split
from bench.testing.classifiers import once

N_DECODED = 20  # number of samples per split whose images are decoded


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
    def loaded(self, spec: DatasetSpec) -> dict[str | None, Split]:
        """Every split, loaded and validated as in a run."""

        def load() -> dict[str | None, Split]:
            return {name: load_split(DataSource(spec, self.data_dir), name) for name in self.splits}

        return once(type(self), load)

    def test_ids_are_unique_and_stay(
        self, spec: DatasetSpec, loaded: dict[str | None, Split]
    ) -> None:
        """Ids and fingerprint are the same when loaded again, so that a run can be resumed."""
        for name, split in loaded.items():
            again = load_split(DataSource(spec, self.data_dir), name)
            assert len(set(split.sample_ids)) == len(split.sample_ids)
            assert list(again.sample_ids) == list(split.sample_ids)
            assert again.fingerprint == split.fingerprint

    def test_splits_are_as_declared(
        self, spec: DatasetSpec, loaded: dict[str | None, Split]
    ) -> None:
        """Sizes and classes equal those in the spec, if it states them."""
        for split in loaded.values():
            assert spec.splits.get(split.split) in (None, len(split.sample_ids))
            assert spec.classes in (None, split.classes)
            assert len(split.classes) == len(set(split.classes))

    def test_images_open(self, loaded: dict[str | None, Split]) -> None:
        """Images of any size and mode can be decoded, and labels are those of the rows."""
        for split in loaded.values():
            step = max(1, len(split.sample_ids) // N_DECODED)
            for sample in split.samples(list(split.sample_ids)[::step]):
                label = split.labels[split.row_of[sample.sample_id]]
                assert sample.item is not None or sample.label == label
                for image in sample.images:
                    assert np.asarray(decode(image).convert("RGB")).ndim == 3

    def test_splits_share_no_sample(self, loaded: dict[str | None, Split]) -> None:
        """Splits are disjoint, so that settings are not chosen on test samples."""
        for (name, split), (other_name, other) in combinations(loaded.items(), 2):
            shared = set(split.sample_ids) & set(other.sample_ids)
            assert not shared, f"{name} and {other_name} share {sorted(shared)[:3]}"


class DatasetContract(SplitsContract):
    """Tests of a dataset of images; subclass it and set `dataset`."""

    def test_labels_are_indices_of_classes(self, loaded: dict[str | None, Split]) -> None:
        """Every label is the index of a class."""
        for split in loaded.values():
            assert set(split.labels) <= set(range(len(split.classes)))


class ItemsContract(SplitsContract):
    """Tests of a dataset of items; subclass it and set `dataset`."""

    def test_answers_are_among_the_candidates(self, loaded: dict[str | None, Split]) -> None:
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
