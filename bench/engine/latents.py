"""Open images and encode them to latents, in groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
import torch
from PIL.Image import Image

from bench.contracts.dataset import Sample
from bench.engine.batching import ShrinkingBatches
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.images import CheckedViews, name_of, open_images, squash
from bench.engine.scoring import sampled
from bench.engine.transfer import ahead

ENCODE_BATCH = 8  # images encoded by the VAE at a time
THREADLESS = ("cpu",)  # where a thread that opens images only takes time from the model


class Latents(ShrinkingBatches):
    """Encodes the images of samples to latents, in batches of at most ENCODE_BATCH pictures."""

    def __init__(
        self,
        backbone: CheckedDenoiser,
        seed: int = 0,
        sample: bool = False,  # whether the latent is a sample of the posterior, not its mean
        squashed: bool = False,  # if not, the backbone cuts out the middle of an image
        views: CheckedViews | None = None,  # views of each image; None: the image alone
    ) -> None:
        super().__init__(ENCODE_BATCH)
        self.backbone, self.seed, self.squashed = backbone, seed, squashed
        self.views = views
        self.sampled = sample or (views is not None and views.of_latents)

    def of(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[torch.Tensor] | str]]:
        """Yield samples with the latents of each image, float32 [V, C, H, W], or an error."""
        groups = open_images(samples, ENCODE_BATCH, self._views)
        if self.backbone.device.type not in THREADLESS:
            groups = ahead(groups, depth=2)
        for group in groups:
            readable = [opened for _, opened in group if not isinstance(opened, str)]
            pictures = [picture for opened in readable for views in opened for picture in views]
            starts = range(0, len(pictures), ENCODE_BATCH)
            batches = (pictures[start : start + ENCODE_BATCH] for start in starts)
            encoded = chain.from_iterable(self._encoded(batch) for batch in batches)
            for sample, opened in group:
                if isinstance(opened, str):
                    yield sample, opened
                    continue
                rows = (torch.stack(list(islice(encoded, len(views)))) for views in opened)
                yield sample, [self._latents(r, name_of(sample, n)) for n, r in enumerate(rows)]

    def _views(self, image: Image, name: str) -> list[Image]:
        views = [image] if self.views is None else self.views.of(image, self.seed, name)
        side = self.backbone.resolution
        return [squash(view, side) for view in views] if self.squashed else views

    def _latents(self, encoded: torch.Tensor, name: str) -> torch.Tensor:
        """Return float32 [V, C, H, W] of one image from its encoded views."""
        encoded = encoded.float()
        if not self.sampled:
            return encoded
        if self.views is not None and self.views.of_latents:
            encoded = encoded.expand(self.views.count, *encoded.shape[1:])
        names = [f"{name}\0view {view}" if view else name for view in range(len(encoded))]
        return torch.stack(
            [sampled(p, self.seed, view) for p, view in zip(encoded, names, strict=True)]
        )

    def _encoded(self, images: list[Image]) -> torch.Tensor:
        """Return one row per image."""
        encode = self.backbone.posterior if self.sampled else self.backbone.encode_images
        rows = np.arange(len(images))
        return self.in_batches(rows, lambda part: encode([images[row] for row in part]))
