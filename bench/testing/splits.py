"""What the splits of every dataset must keep, whatever its rows are."""

from __future__ import annotations

import pytest

from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.inputs.data import load_split
from bench.inputs.split import Split
from bench.testing.making import once

OPENED = 20  # samples whose images are decoded, spread over a split


class SplitsContract:
    """The part that `DatasetContract` and `ItemsContract` share.

    Attributes:
        dataset: its registered name, or its spec.
        splits: the splits to check; None in it is the one that is evaluated.
        data_dir: a local copy, where the dataset needs one.
    """

    dataset: str | DatasetSpec
    splits: tuple[str | None, ...] = (None,)
    data_dir: str | None = None

    @pytest.fixture
    def spec(self) -> DatasetSpec:
        """The dataset's spec."""
        given = self.dataset
        return given if isinstance(given, DatasetSpec) else load_plugins().datasets.get(given)

    @pytest.fixture
    def loaded(self, spec: DatasetSpec) -> dict[str | None, Split]:
        """Every split, loaded as a run does: labels or answers, and ids, are checked there."""

        def load() -> dict[str | None, Split]:
            return {split: load_split(spec, split, self.data_dir) for split in self.splits}

        return once(type(self), load)

    def test_ids_are_unique_and_stay(
        self, spec: DatasetSpec, loaded: dict[str | None, Split]
    ) -> None:
        """A run resumes by ids, and its identity is the data's content: both are the same again."""
        for name, split in loaded.items():
            again = load_split(spec, name, self.data_dir)
            assert len(set(split.sample_ids)) == len(split.sample_ids)
            assert list(again.sample_ids) == list(split.sample_ids)
            assert again.fingerprint == split.fingerprint
