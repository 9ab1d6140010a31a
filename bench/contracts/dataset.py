"""The dataset contract: what a dataset plugin returns, and one labelled image of it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Sample:
    """One labelled image, still encoded."""

    sample_id: str
    label: int
    image: dict[str, Any]  # {"bytes", "path"}, as `datasets` stores it

    def open(self) -> Image.Image:
        """Decode the image.

        Raises:
            OSError or ValueError: the image is corrupt or missing.
        """
        from PIL import Image

        data = self.image.get("bytes")
        image = Image.open(BytesIO(data) if data is not None else self.image["path"])
        image.load()
        return image
