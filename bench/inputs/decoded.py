"""Dataset rows whose images are decoded as in runs, for users of `datasets`."""

from typing import Any

import datasets
from PIL import Image

from bench.contracts.dataset import StoredImage
from bench.inputs.pixels import decode
from bench.inputs.rows import make_list_feature


class DecodedImage(datasets.Image):  # type: ignore[misc]  # datasets is not typed
    """`datasets.Image` with our decoding: upright, on white, known formats only.

    `border` is the number of pixels to cut from each side.
    """

    border: int = 0

    def decode_example(
        self, value: StoredImage | str | Image.Image, token_per_repo_id: Any = None
    ) -> Image.Image:
        """Return the image. Raises PixelsError if it cannot be decoded."""
        if isinstance(value, Image.Image):
            return value
        stored = {"bytes": None, "path": value} if isinstance(value, str) else value
        return decode({**stored, "border": self.border} if self.border else stored)


def decode_images(rows: datasets.Dataset, border: int = 0) -> datasets.Dataset:
    """Return the rows with images, or lists of them for items, that are decoded when read."""
    feature, several = DecodedImage(), "images" in rows.column_names
    feature.border = border
    kind = make_list_feature(feature) if several else feature
    decoded = rows.cast_column("images" if several else "image", kind)
    decoded.info.download_checksums = None  # what their user makes of them is in no file
    return decoded
