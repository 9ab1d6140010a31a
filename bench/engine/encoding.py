"""Images on their way in: decoded in groups, and a corrupt one named instead of raised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from PIL import Image

from bench.contracts.dataset import Sample
from bench.inputs.pixels import LARGE, PixelsError, decode

MOST_PIXELS = LARGE * 3 // 2  # of a group: eight photographs of 12 megapixels, or two large images

Opened = tuple[Sample, Image.Image | str]


def open_images(samples: Iterable[Sample], size: int) -> Iterator[list[Opened]]:
    """Yield groups of samples, each with its image, or with the reason why it cannot be read.

    A group has `size` samples, or fewer where they are large, so that few large images are in
    memory at a time.
    """
    group: list[Opened] = []
    pixels = 0
    for sample in samples:
        image = _open(sample)
        group.append((sample, image))
        pixels += 0 if isinstance(image, str) else image.width * image.height
        if len(group) == size or pixels >= MOST_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _open(sample: Sample) -> Image.Image | str:
    try:
        return decode(sample.image)
    except PixelsError as error:
        return f"the image cannot be read: {error}"
