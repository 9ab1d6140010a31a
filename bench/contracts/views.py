"""The contract of views: several pictures of one image, over which its draws are spread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


class Views(ABC):
    """Views, made as `Target(**parameters)` with the parameters of their spec.

    Each draw of an image sees one view, the same for every text. A view is encoded once.

    Attributes:
        count: number of views, at least 1; the same for every image.
        samples_latents: whether the views are samples of the latent's posterior, a class attribute.
            The toolkit makes those, and `of` is not called.
    """

    count: int
    samples_latents: bool = False

    @abstractmethod
    def of(self, image: Image.Image, seed: int) -> Sequence[Image.Image]:
        """Return `count` pictures.

        Args:
            image: upright, of any size and mode.
            seed: seed of this image in this run. It alone must decide what is random.
        """
