"""Pictures as small as a page needs them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from bench.contracts.dataset import Sample
from bench.inputs.pixels import decode

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128  # pixels of a thumbnail's longer side
QUALITY = 75  # WebP


def sample_picture(sample: Sample, side: int = SIDE) -> tuple[str, bytes, bool]:
    """Return a sample's picture, as `thumbnail` does.

    Raises:
        PixelsError: an image of it cannot be decoded.
    """
    return thumbnail(side_by_side([decode(one) for one in sample.images]), side)


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return one picture of the images of an item."""
    if len(images) == 1:
        return images[0]
    from PIL import Image

    height = max(image.height for image in images)
    whole = Image.new("RGB", (sum(image.width for image in images), height))
    left = 0
    for image in images:
        whole.paste(image.convert("RGB"), (left, 0))
        left += image.width
    return whole


def thumbnail(image: Image.Image, side: int = SIDE) -> tuple[str, bytes, bool]:
    """Return media type and bytes, and whether the image is so small that every pixel is kept.

    Args:
        image: the image.
        side: pixels of the picture's longer side, at most.
    """
    small = max(image.size) <= side // 2
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    out = BytesIO()
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.thumbnail((side, side))
        image.save(out, "WEBP", quality=QUALITY, method=4)
    return f"image/{'png' if small else 'webp'}", out.getvalue(), small
