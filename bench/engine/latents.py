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

    def of(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[torch.Tensor] | str]]:
        """Yield samples with a latent for each image, float32 [C, H, W], or why there is none."""
        groups: Iterator[list[Opened]] = open_images(samples, ENCODE_BATCH)
        if self.squashed:
            groups = map(self._squash, groups)
        if self.backbone.device.type not in THREADLESS:
            groups = ahead(groups, depth=2)
        encode = self.backbone.encode_images if self.seed is None else self.backbone.posterior
        for group in groups:
            images = [
                image for _, opened in group if not isinstance(opened, str) for image in opened
            ]
            encoded = iter(self._encode(encode, images) if images else ())
            for sample, opened in group:
                if isinstance(opened, str):
                    yield sample, opened
                    continue
                found = [next(encoded).float() for _ in opened]
                if self.seed is not None:
                    found = [
                        sampled(latent, self.seed, name_of(sample, number))
                        for number, latent in enumerate(found)
                    ]
                yield sample, found

    def _squash(self, group: list[Opened]) -> list[Opened]:
        side = self.backbone.resolution
        return [
            (sample, opened if isinstance(opened, str) else [squash(i, side) for i in opened])
            for sample, opened in group
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


def name_of(sample: Sample, number: int) -> str:
    """Return what stands for one image of a sample where something is made for it alone."""
    return f"{sample.sample_id}\0{number}" if number else sample.sample_id
