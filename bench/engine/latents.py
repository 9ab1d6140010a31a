"""Images on their way in: opened, encoded in groups, and yielded one by one with their latent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from PIL.Image import Image

from bench.contracts.dataset import Sample
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.images import CheckedViews, Opened, name_of, open_images, squash
from bench.engine.noising import sampled
from bench.engine.transfer import ahead, free_memory

ENCODE_BATCH = 8  # images encoded by the VAE at a time
THREADLESS = ("cpu",)  # where a thread that opens images only takes time from the model


class Latents:
    """Encodes images.

    Args:
        backbone: the denoiser.
        seed: of the run.
        sample: whether the latent is a sample of the posterior. If not, it is its mean.
        squashed: whether images are squashed to the model's resolution. If not, the backbone cuts
            out their middle.
        views: of each image; None: itself alone.
    """

    def __init__(
        self,
        backbone: CheckedDenoiser,
        seed: int = 0,
        sample: bool = False,
        squashed: bool = False,
        views: CheckedViews | None = None,
    ) -> None:
        self.backbone, self.seed, self.squashed = backbone, seed, squashed
        self.views = views
        self.sampled = sample or (views is not None and views.of_latents)

    def of(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[torch.Tensor] | str]]:
        """Yield samples with the latents of each image, or why there are none.

        Those of an image are float32 [V, C, H, W], one for each view.
        """
        groups: Iterator[list[Opened]] = map(self._viewed, open_images(samples, ENCODE_BATCH))
        if self.backbone.device.type not in THREADLESS:
            groups = ahead(groups, depth=2)
        encode = self.backbone.posterior if self.sampled else self.backbone.encode_images
        for group in groups:
            pictures = [p for _, opened in group if not isinstance(opened, str) for p in opened]
            encoded = self._each(encode, pictures)
            for sample, opened in group:
                if isinstance(opened, str):
                    yield sample, opened
                    continue
                images = len(sample.images)
                each = len(opened) // images
                yield (
                    sample,
                    [
                        self._latents([next(encoded) for _ in range(each)], name_of(sample, number))
                        for number in range(images)
                    ],
                )

    def _viewed(self, group: list[Opened]) -> list[Opened]:
        """Return the views of every image of a group, squashed where that is wanted."""
        viewed: list[Opened] = []
        for sample, opened in group:
            if isinstance(opened, str):
                viewed.append((sample, opened))
                continue
            pictures = opened
            if self.views is not None:
                pictures = [
                    view
                    for number, image in enumerate(opened)
                    for view in self.views.of(image, self.seed, name_of(sample, number))
                ]
            if self.squashed:
                pictures = [squash(picture, self.backbone.resolution) for picture in pictures]
            viewed.append((sample, pictures))
        return viewed

    def _latents(self, found: list[torch.Tensor], name: str) -> torch.Tensor:
        """Return float32 [V, C, H, W] of one image, from what was encoded of its views."""
        encoded = torch.stack(found).float()
        if not self.sampled:
            return encoded
        if self.views is not None and self.views.of_latents:
            encoded = encoded.expand(self.views.count, *encoded.shape[1:])
        return torch.stack(
            [
                sampled(each, self.seed, f"{name}\0view {view}" if view else name)
                for view, each in enumerate(encoded)
            ]
        )

    def _each(
        self, encode: Callable[[list[Image]], torch.Tensor], pictures: list[Image]
    ) -> Iterator[torch.Tensor]:
        """Yield what is encoded of each picture, a few of them at a time."""
        for start in range(0, len(pictures), ENCODE_BATCH):
            yield from self._encode(encode, pictures[start : start + ENCODE_BATCH])

    def _encode(
        self, encode: Callable[[list[Image]], torch.Tensor], images: list[Image]
    ) -> torch.Tensor:
        """Return a row for each image; out of memory, of half of them at a time."""
        filled = images + images[-1:] * ((1 << (len(images) - 1).bit_length()) - len(images))
        try:
            return encode(filled)[: len(images)]
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        free_memory(self.backbone.device)
        half = len(filled) // 2
        return torch.cat([self._encode(encode, images[:half]), self._encode(encode, images[half:])])
