"""The contract of views: several pictures of one image, over which its draws are spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL import Image


class Views(Protocol):
    """Made as `Target(**parameters)`, with the parameters of its spec.

    Each draw of an image sees one of its views, the same one for every text. A view is encoded
    once. With `samples_latents = True`, a class attribute, it says that its views are samples of
    the latent's posterior: the toolkit makes those, and `of` is not called.

    Attributes:
        count: how many views there are, at least 1; the same for every image.
    """

    count: int

    def of(self, image: Image.Image, seed: int) -> Sequence[Image.Image]:
        """Return `count` pictures.

        Args:
            image: upright, of any size and mode.
            seed: of this image in this run. All that is random must come from it alone.
        """
