"""Corruptions of images as in ImageNet-C, applied when images are decoded.

The constants of ImageNet-C are for images of 224 pixels, so the shorter side of an image is first
resized to 224. Of an image more than 16 times as long as wide only the middle is corrupted.
Randomness is derived from the corruption and the sample id only: not from severity, order, limit or
seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from bench.contracts.dataset import Sample, StoredImage
from bench.errors import UserError, did_you_mean
from bench.inputs.corruption_kinds import CORRUPTIONS

CORRUPTED_SIDE = 224  # pixels of the shorter side
CORRUPTED_ELONGATION = 16  # longer side in shorter sides; the memory of `fog` is quadratic in it
SEVERITIES = 5
COLLECTION = "@corruptions"


def parse_corruption(text: str) -> str | None:
    """Validate and return `NAME:SEVERITY`, or return None for `none`.

    Raises UserError if the name or the severity is unknown, or the text is a collection.
    """
    if text == "none":
        return None
    name, _, severity = text.partition(":")
    if name == COLLECTION:
        raise UserError(
            f"--corrupt {text} stands for {len(expand_corruptions(text))} corruptions, but a run"
            f' has one. A study runs them all: corrupt = ["none", "{text}"].'
        )
    if name not in CORRUPTIONS:
        raise UserError(
            f"--corrupt {text}: there is no corruption {name!r}.{did_you_mean(name, CORRUPTIONS)}"
            f" They are: {', '.join(CORRUPTIONS)}."
        )
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise UserError(f"--corrupt {text}: write {name}:SEVERITY, from 1 to {SEVERITIES}.")
    return text


def expand_corruptions(text: str) -> list[str]:
    """Return every corruption that `@corruptions` or `@corruptions:SEVERITY` stands for.

    Any other text is returned unchanged, as the only element. Severities are not validated.
    """
    collection, _, severity = text.partition(":")
    if collection != COLLECTION:
        return [text]
    severities = [severity] if severity else map(str, range(1, SEVERITIES + 1))
    return [f"{name}:{number}" for number in severities for name in CORRUPTIONS]


def corrupt_samples(samples: Iterable[Sample], corruption: str | None) -> Iterator[Sample]:
    """Yield samples whose images will be corrupted when decoded; with None, unchanged samples."""
    for sample in samples:
        if corruption is not None:
            images: list[StoredImage | None] = []
            for n, image in enumerate(sample.images):
                name = sample.sample_id if sample.item is None else f"{sample.sample_id} {n}"
                images.append({**image, "corruption": (corruption, name)} if image else image)
            sample = sample.with_images(images)
        yield sample


def corrupt(image: Image.Image, corruption: str, name: str) -> Image.Image:
    """Return the image in RGB, resized to a shorter side of 224 pixels and corrupted.

    `corruption` is a valid `NAME:SEVERITY`, and `name` identifies the image, which should be at
    most `CORRUPTED_ELONGATION` times as long as wide.
    """
    scale = CORRUPTED_SIDE / min(image.size)
    width, height = (max(CORRUPTED_SIDE, round(side * scale)) for side in image.size)
    image = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    kind, _, severity = corruption.partition(":")
    digest = hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "surrogatepass")).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    function, constants = CORRUPTIONS[kind]
    pixels = function(np.asarray(image) / 255, rng, constants[int(severity) - 1])
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
