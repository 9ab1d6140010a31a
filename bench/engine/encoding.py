"""Images on their way in: decoded in groups, and a corrupt one named instead of raised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from PIL import Image

from bench.contracts.dataset import Sample

Opened = tuple[Sample, Image.Image | str]


def open_images(samples: Iterable[Sample], size: int) -> Iterator[list[Opened]]:
    """Yield groups of samples, each with its image, or with the reason why it cannot be read."""
    remaining = iter(samples)
    while group := list(islice(remaining, size)):
        yield [(sample, _open(sample)) for sample in group]


def _open(sample: Sample) -> Image.Image | str:
    try:
        return sample.open()
    except Exception as error:  # PIL raises many kinds for a corrupt file
        return f"the image cannot be read: {error}"
