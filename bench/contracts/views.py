"""The contract of views: several pictures of one image, over which its draws are spread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


class Views(ABC):
    """Made as `Target(**parameters)`, with the parameters of its spec.

    Each draw of an image sees one of its views, the same one for every text. A view is encoded
    once.

    Attributes:
        count: how many views there are, at least 1; the same for every image.
        samples_latents: whether they are samples of the latent's posterior, a class attribute. The
            toolkit makes those, and `of` is not called.
    """

    count: int
    samples_latents: bool = False

    @abstractmethod
    def of(self, image: Image.Image, seed: int) -> Sequence[Image.Image]:
        """Return `count` pictures.

        Args:
            image: upright, of any size and mode.
            seed: of this image in this run. All that is random must come from it alone.
        """
