"""Blind controls: the same questions with the image destroyed, so that the texts alone answer.

    grey              every image is one grey
    noise             every pixel is random
    shuffled-images   every sample has the images of another one
    text-only         the images stay, and a likelihood scores the texts without them

They depend on the split and a sample's id alone, whatever the order, the limit and the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.dataset import Sample, StoredImage
from bench.errors import UserError
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.prompts import Prompts

if TYPE_CHECKING:
    from bench.inputs.split import Split

GREY = 128
TEXT_ONLY = "text-only"
Stored = StoredImage | None


def blinded(
    split: Split, sample_ids: Iterable[str], pool: Prompts, control: str
) -> Iterator[Sample]:
    """Yield samples whose images say nothing about their answers (UserError: only one sample)."""
    partner = partners(split.sample_ids) if control == "shuffled-images" else {}
    for sample in split.samples(sample_ids, pool):
        name = sample.sample_id
        if control == "shuffled-images":
            images = split.images(partner[name])
        else:
            images = tuple(
                _destroyed(image, f"{name} {number}" if control == "noise" else None)
                for number, image in enumerate(sample.images)
            )
        if sample.item is None:
            yield replace(sample, image=images[0])
        else:
            yield replace(sample, item=replace(sample.item, images=images))


def partners(sample_ids: Sequence[str]) -> dict[str, str]:
    """Return the sample whose images each one gets: the next by the hash of the id (UserError)."""
    if len(sample_ids) < 2:
        raise UserError("--control shuffled-images needs two samples or more.")
    order = sorted(sample_ids, key=lambda name: hashlib.sha256(name.encode()).digest())
    return dict(zip(order, [*order[1:], order[0]], strict=True))


def _destroyed(image: Stored, name: str | None) -> Stored:
    """Return an image of the same size, grey, or of noise that the name decides.

    One that cannot be read stays, and fails when its turn comes.
    """
    from PIL import Image

    try:
        width, height = decode(image).size
    except PixelsError:
        return image
    pixels = np.full((height, width, 3), GREY, np.uint8)
    if name is not None:
        digest = hashlib.sha256(name.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        pixels = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return {"bytes": file.getvalue(), "path": None}
