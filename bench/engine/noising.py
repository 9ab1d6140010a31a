"""Where a cell's noise comes from: one bank that all images share, or each image's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bench.engine.transfer import to_device
from bench.inputs.draws import DrawPlan, noise

KEPT = 256  # draws of images whose noise is kept; the prompts of one are often in two batches
LATENT = 2**64 - 1  # the draw that an image's sampled latent counts as; a plan has none of it


class Noise(Protocol):
    """The noise of a batch's cells."""

    def of(
        self, images: Sequence[str], cells: NDArray[np.int64], draw: torch.Tensor
    ) -> torch.Tensor:
        """Return float32 [B, C, H, W] on the device.

        Args:
            images: sample ids.
            cells: int64 [2, B], each cell's draw and its position in `images`.
            draw: int64 [B] on the device, the draws again.
        """


class SharedNoise:
    """The same noise for a draw of every image.

    Args:
        bank: float32 [N, C, H, W].
        device: where it is kept.
    """

    def __init__(self, bank: NDArray[np.float32], device: torch.device) -> None:
        self.bank = torch.from_numpy(bank).to(device)

    def of(
        self, images: Sequence[str], cells: NDArray[np.int64], draw: torch.Tensor
    ) -> torch.Tensor:
        """Return rows of the bank."""
        return self.bank[draw]


class OwnNoise:
    """Noise of each image's own, made from (seed, draw, sample id) when it is needed.

    Args:
        plan: pairs draws.
        seed: of the run.
        shape: (C, H, W).
        device: where batches are wanted.
    """

    def __init__(
        self, plan: DrawPlan, seed: int, shape: tuple[int, ...], device: torch.device
    ) -> None:
        self.device = device

        @lru_cache(KEPT)
        def made(image: str, draw: int) -> NDArray[np.float32]:
            return plan.noise_of(seed, draw, shape, image)

        self._made = made

    def of(
        self, images: Sequence[str], cells: NDArray[np.int64], draw: torch.Tensor
    ) -> torch.Tensor:
        """Make each (image, draw) once, and return it for each of its cells."""
        distinct, place = np.unique(cells, axis=1, return_inverse=True)
        made = [self._made(images[image], int(k)) for k, image in distinct.T]
        bank = to_device(np.stack(made), self.device)
        return bank[to_device(place.reshape(-1), self.device)]


def sampled(posterior: torch.Tensor, seed: int, image: str) -> torch.Tensor:
    """Return a sample of an image's latent, float32 [C, H, W], made from (seed, sample id) alone.

    Args:
        posterior: float32 [2, C, H, W], mean and standard deviation.
        seed: of the run.
        image: the sample id.
    """
    mean, deviation = posterior
    eps = torch.from_numpy(noise(seed, LATENT, tuple(mean.shape), image)).to(mean.device)
    return torch.addcmul(mean, deviation, eps)
