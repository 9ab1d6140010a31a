"""Blind controls: what is left of an image, and whose images a sample gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.captions import one_image, two_images

from bench.contracts.dataset import Sample
from bench.contracts.specs import DatasetSpec
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import decode
from bench.inputs.replaced import blind_samples, pair_samples
from bench.inputs.split import Split

SPEC = DatasetSpec(name="captions", target="helpers.captions:Captions", items=True)


def destroyed(split: Split, control: str) -> dict[str, Sample]:
    pool = split.collect_texts(split.sample_ids)
    return {s.sample_id: s for s in blind_samples(split, split.sample_ids, pool, control)}


def pixels(image: Any) -> Any:
    return np.asarray(decode(image).convert("RGB"))


@pytest.mark.parametrize("rows", [one_image(5), two_images(4)], ids=["one", "two"])
def test_nothing_of_the_image_is_left(rows: Any) -> None:
    split = load_split(DataSource(SPEC), rows=rows)
    for sample in destroyed(split, "grey").values():
        for image in sample.images:
            assert (pixels(image) == 128).all()
    noise = destroyed(split, "noise")
    seen = [pixels(image).tobytes() for sample in noise.values() for image in sample.images]
    assert len(set(seen)) == len(seen)
    again = [pixels(i).tobytes() for s in destroyed(split, "noise").values() for i in s.images]
    assert again == seen
    shuffled = destroyed(split, "shuffled-images")
    for sample in split.samples(split.sample_ids):
        assert shuffled[sample.sample_id].images != sample.images
        assert shuffled[sample.sample_id].label == sample.label


def test_each_sample_gives_its_images_to_another_one_whatever_the_order() -> None:
    names = [f"s{number}" for number in range(20)]
    given = pair_samples(names)
    assert sorted(given.values()) == sorted(names) and all(a != b for a, b in given.items())
    assert pair_samples(names[::-1]) == given
