"""What every dataset must keep."""

from __future__ import annotations

from collections import Counter

import numpy as np

from bench.contracts.specs import DatasetSpec
from bench.inputs.pixels import decode
from bench.inputs.split import Split
from bench.testing.splits import OPENED, SplitsContract


class DatasetContract(SplitsContract):
    """Subclass it, and name your registered dataset.

    Attributes:
        dataset: its registered name, or its spec.
        splits: the splits to check; None in it is the one that is evaluated.
        data_dir: a local copy, where the dataset needs one.
    """

    def test_splits_are_as_declared(
        self, spec: DatasetSpec, loaded: dict[str | None, Split]
    ) -> None:
        """Sizes and classes are those of the spec, where it states them."""
        for split in loaded.values():
            stated = spec.splits.get(split.split)
            assert stated in (None, len(split.sample_ids))
            assert spec.classes in (None, split.classes)
            assert len(split.classes) == len(set(split.classes))

    def test_every_class_has_images(self, loaded: dict[str | None, Split]) -> None:
        """Labels are indices of classes."""
        for split in loaded.values():
            counts = Counter(int(label) for label in split.labels)
            assert set(counts) <= set(range(len(split.classes)))

    def test_images_open(self, loaded: dict[str | None, Split]) -> None:
        """Images are decoded, whatever their size and mode."""
        for split in loaded.values():
            step = max(1, len(split.sample_ids) // OPENED)
            chosen = list(split.sample_ids)[::step]
            labels = dict(zip(split.sample_ids, split.labels, strict=True))
            for sample in split.samples(chosen):
                image = decode(sample.image)
                assert min(image.size) > 0 and sample.label == labels[sample.sample_id]
                assert np.asarray(image.convert("RGB")).ndim == 3

    def test_splits_share_no_image(self, loaded: dict[str | None, Split]) -> None:
        """What one is chosen on is not what another is tested on."""
        names = list(loaded)
        for i, name in enumerate(names):
            for other in names[i + 1 :]:
                shared = set(loaded[name].sample_ids) & set(loaded[other].sample_ids)
                assert not shared, f"{name} and {other} share {sorted(shared)[:3]}"
