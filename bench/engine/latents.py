"""Images on their way in: opened, encoded in groups, and yielded one by one with their latent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

import torch
from PIL.Image import Image

from bench.contracts.dataset import Sample
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.images import CheckedViews, Opened, name_of, open_images, squash
from bench.engine.scoring import sampled
from bench.engine.transfer import ahead, free_memory

ENCODE_BATCH = 8  # images encoded by the VAE at a time
THREADLESS = ("cpu",)  # where a thread that opens images only takes time from the model

Encode = Callable[[list[Image]], torch.Tensor]


class Latents:
    """Encodes images."""

    def __init__(
        self,
        backbone: CheckedDenoiser,
        seed: int = 0,
        sample: bool = False,  # whether the latent is a sample of the posterior, not its mean
        squashed: bool = False,  # if not, the backbone cuts out the middle of an image
        views: CheckedViews | None = None,  # views of each image; None: the image alone
    ) -> None:
        self.backbone, self.seed, self.squashed = backbone, seed, squashed
        self.views = views
        self.sampled = sample or (views is not None and views.of_latents)

    def of(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[torch.Tensor] | str]]:
        """Yield samples with the latents of each image, float32 [V, C, H, W], or an error."""
        groups: Iterator[list[Opened]] = map(self._viewed, open_images(samples, ENCODE_BATCH))
        if self.backbone.device.type not in THREADLESS:
            groups = ahead(groups, depth=2)
        encode = self.backbone.posterior if self.sampled else self.backbone.encode_images
        for group in groups:
            pictures = [p for _, opened in group if not isinstance(opened, str) for p in opened]
            starts = range(0, len(pictures), ENCODE_BATCH)
            batches = (pictures[start : start + ENCODE_BATCH] for start in starts)
            encoded = chain.from_iterable(self._encode(encode, batch) for batch in batches)
            for sample, opened in group:
                if isinstance(opened, str):
                    yield sample, opened
                    continue
                views = len(opened) // len(sample.images)
                latents = [
                    self._latents(torch.stack(list(islice(encoded, views))), name_of(sample, n))
                    for n in range(len(sample.images))
                ]
                yield sample, latents

    def _viewed(self, group: list[Opened]) -> list[Opened]:
        """Return the views of every image of a group, squashed where the settings say so."""
        viewed: list[Opened] = []
        for sample, opened in group:
            pictures = opened
            if self.views is not None and not isinstance(pictures, str):
                views = self.views.of_sample(sample, pictures, self.seed)
                pictures = list(chain.from_iterable(views))
            if self.squashed and not isinstance(pictures, str):
                pictures = [squash(picture, self.backbone.resolution) for picture in pictures]
            viewed.append((sample, pictures))
        return viewed

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

    def _encode(self, encode: Encode, images: list[Image]) -> torch.Tensor:
        """Return one row per image; out of memory, of half of them at a time."""
        filled = images + images[-1:] * ((1 << (len(images) - 1).bit_length()) - len(images))
        try:
            return encode(filled)[: len(images)]
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        free_memory(self.backbone.device)
        half = len(filled) // 2
        return torch.cat([self._encode(encode, images[:half]), self._encode(encode, images[half:])])
