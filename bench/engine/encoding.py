"""Images on their way in: decoded in groups, and a corrupt one named instead of raised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from PIL import Image

from bench.contracts.dataset import Sample
from bench.inputs.pixels import LARGE, PixelsError, decode

MOST_PIXELS = LARGE * 3 // 2  # of a group: eight photographs of 12 megapixels, or two large images

Opened = tuple[Sample, list[Image.Image] | str]


def open_images(samples: Iterable[Sample], size: int) -> Iterator[list[Opened]]:
    """Yield groups of samples, each with its images, or with the reason why one cannot be read.

    A group has `size` images, or fewer where they are large, so that few large images are in
    memory at a time; those of an item are never parted.
    """
    group: list[Opened] = []
    count = pixels = 0
    for sample in samples:
        opened = _open(sample)
        group.append((sample, opened))
        count += len(sample.images)
        if not isinstance(opened, str):
            pixels += sum(image.width * image.height for image in opened)
        if count >= size or pixels >= MOST_PIXELS:
            yield group
            group, count, pixels = [], 0, 0
    if group:
        yield group


def _open(sample: Sample) -> list[Image.Image] | str:
    opened = []
    for number, image in enumerate(sample.images, start=1):
        try:
            opened.append(decode(image))
        except PixelsError as error:
            which = "the image" if len(sample.images) == 1 else f"image {number}"
            return f"{which} cannot be read: {error}"
    return opened
