"""Images on their way in: opened, encoded in groups, and yielded one by one with their latent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from PIL.Image import Image

from bench.contracts.dataset import Sample
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.encoding import Opened, open_images
from bench.engine.images import squash
from bench.engine.noising import sampled
from bench.engine.transfer import ahead, free_memory

ENCODE_BATCH = 8  # images encoded by the VAE at a time
THREADLESS = ("cpu",)  # where a thread that opens images only takes time from the model


class Latents:
    """Encodes images.

    Args:
        backbone: the denoiser.
        seed: of the posterior's sample; None: its mean is the latent.
        squashed: whether images are squashed to the model's resolution. If not, the backbone cuts
            out their middle.
    """

    def __init__(
        self, backbone: CheckedDenoiser, seed: int | None = None, squashed: bool = False
    ) -> None:
        self.backbone, self.seed, self.squashed = backbone, seed, squashed

    def of(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, torch.Tensor | str]]:
        """Yield samples with their latent, float32 [C, H, W], or why there is none."""
        groups: Iterator[list[Opened]] = open_images(samples, ENCODE_BATCH)
        if self.squashed:
            groups = map(self._squash, groups)
        if self.backbone.device.type not in THREADLESS:
            groups = ahead(groups, depth=2)
        encode = self.backbone.encode_images if self.seed is None else self.backbone.posterior
        for group in groups:
            images = [image for _, image in group if not isinstance(image, str)]
            encoded = iter(self._encode(encode, images) if images else ())
            for sample, image in group:
                if isinstance(image, str):
                    yield sample, image
                elif self.seed is None:
                    yield sample, next(encoded).float()
                else:
                    yield sample, sampled(next(encoded).float(), self.seed, sample.sample_id)

    def _squash(self, group: list[Opened]) -> list[Opened]:
        side = self.backbone.resolution
        return [
            (sample, image if isinstance(image, str) else squash(image, side))
            for sample, image in group
        ]

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
