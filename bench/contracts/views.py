"""The contract of views: several versions of an image, such as crops, that share its draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


class Views(ABC):
    """A way to make views, constructed with the parameters of its spec.

    Each draw of an image uses one view, the same for all texts. Every view is encoded once.

    Attributes:
        count: number of views, at least 1; the same for all images.
        samples_latents: class attribute; whether the views are samples from the posterior of the
            latent. The toolkit draws these itself and does not call `of`.
    """

    count: int
    samples_latents: bool = False

    @abstractmethod
    def of(self, image: Image.Image, seed: int) -> Sequence[Image.Image]:
        """Return `count` pictures of an image, which is upright, of any size and mode.

        All randomness must be derived from `seed`, which is that of this image in this run.
        """
