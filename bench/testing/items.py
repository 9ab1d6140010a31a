"""What every dataset of items must keep."""

from __future__ import annotations

import numpy as np

from bench.contracts.items import n_answers
from bench.contracts.specs import DatasetSpec
from bench.inputs.pixels import decode
from bench.inputs.split import Split
from bench.testing.splits import OPENED, SplitsContract


class ItemsContract(SplitsContract):
    """Subclass it, and name your registered dataset of items.

    Attributes:
        dataset: its registered name, or its spec.
        splits: the splits to check; None in it is the one that is evaluated.
        data_dir: a local copy, where the dataset needs one.
    """

    def test_splits_are_as_declared(
        self, spec: DatasetSpec, loaded: dict[str | None, Split]
    ) -> None:
        """It says that its rows are items; sizes are those of the spec, where it states them."""
        assert spec.items
        for name, split in loaded.items():
            assert len(split.sample_ids) == (
                spec.splits.get(str(name or spec.split)) or len(split.sample_ids)
            )

    def test_answers_are_among_the_candidates(self, loaded: dict[str | None, Split]) -> None:
        """Every item is whole: its texts are in the pool, and its answer is one of its own."""
        for split in loaded.values():
            assert split.items is not None
            pool = split.items.pool(split.sample_ids)
            assert len(set(pool.texts)) == len(pool.texts)
            for sample in split.samples(split.sample_ids, pool):
                assert sample.item is not None
                texts = [pool.texts[text] for text in sample.item.texts]
                row = split.rows[split.row_of[sample.sample_id]]
                assert texts == list(row["texts"])
                assert 0 <= sample.label < n_answers(*sample.item.shape)

    def test_images_open(self, loaded: dict[str | None, Split]) -> None:
        """Images are decoded, whatever their size and mode."""
        for split in loaded.values():
            step = max(1, len(split.sample_ids) // OPENED)
            for sample in split.samples(split.sample_ids[::step]):
                for image in sample.images:
                    assert np.asarray(decode(image).convert("RGB")).ndim == 3

    def test_splits_share_no_item(self, loaded: dict[str | None, Split]) -> None:
        """What one is chosen on is not what another is tested on."""
        names = list(loaded)
        for i, name in enumerate(names):
            for other in names[i + 1 :]:
                shared = set(loaded[name].sample_ids) & set(loaded[other].sample_ids)
                assert not shared, f"{name} and {other} share {sorted(shared)[:3]}"
