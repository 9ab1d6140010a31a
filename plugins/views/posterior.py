"""Samples of the latent instead of its mean."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from bench.contracts.views import Views


class Posterior(Views):
    """Samples of the posterior's distribution; the toolkit draws them.

    Args:
        count: how many.
    """

    samples_latents = True

    def __init__(self, count: int = 8) -> None:
        if count < 1:
            raise ValueError(f"count={count}: at least one view is needed")
        self.count = count

    def of(self, image: Image.Image, seed: int) -> Sequence[Image.Image]:
        """Return the image; the latents differ."""
        return [image] * self.count
