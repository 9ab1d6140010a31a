"""A denoiser of the digits in a few lines, for tests in which any run will do.

A pass through `tiny-digits` takes a hundred times as long, and loading it a second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from bench.contracts.levels import Levels, diffusion_levels
from bench.discovery.loading import load_plugins
from bench.engine import embeddings
from bench.engine.images import preprocess

SIDE = 8
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PULL = 0.7  # how much of the noise is told apart from the picture


@cache
def means() -> torch.Tensor:
    """Return the mean picture of each digit in `train`, float32 [10, 1, 8, 8]."""
    from bench import load_dataset

    rows = load_dataset("digits", "train")
    labels = np.array(rows["label"])
    pixels = preprocess([image.convert("RGB") for image in rows["image"]], SIDE)[:, :1]
    return torch.stack([pixels[labels == digit].mean(0) for digit in range(len(NAMES))])


def picture_of(text: str) -> torch.Tensor:
    """Return the mean picture of the digits that a text names, or one for any other text."""
    if digits := [digit for digit, name in enumerate(NAMES) if name in text]:
        return means()[digits].mean(0)
    return torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(crc32(text.encode())))


class Answer(torch.nn.Module):
    """What noise is left of x_t where the mean picture of a digit is taken away."""

    def forward(
        self, x_t: torch.Tensor, alpha: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        return PULL * (x_t - alpha.sqrt() * conditioning) / (1 - alpha).sqrt()


class Sketch:
    """A text stands for the mean picture of the digits that it names."""

    latent_shape = (1, SIDE, SIDE)
    resolution = SIDE
    alphas_cumprod = np.linspace(0.9, 0.02, 1000)
    levels = diffusion_levels(alphas_cumprod, "epsilon")
    can_linearise = True

    def __init__(self, weights: Any, *, device: str, dtype: str, **parameters: Any) -> None:
        self.device, self.dtype = torch.device("cpu"), getattr(torch, dtype)
        self.network = Answer()
        self._alphas = torch.from_numpy(self.alphas_cumprod).to(self.dtype)

    @staticmethod
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int]:
        return [len(text.split()) for text in texts], 75

    @staticmethod
    def level_table(weights: Any, **parameters: Any) -> Levels:
        return Sketch.levels

    @staticmethod
    def linearisation_cost(weights: Any, resolution: int | None = None) -> float:
        return 1.984

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return preprocess(images, SIDE)[:, :1]

    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.encode_images(images)
        return mean, torch.full_like(mean, 0.1)

    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.stack([picture_of(text) for text in texts])

    def encode_null(self) -> torch.Tensor:
        return means().mean(0, keepdim=True)

    def denoise(
        self, x_t: torch.Tensor, t: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        alpha = self._alphas[t][:, None, None, None]
        answer: torch.Tensor = self.network(x_t.to(self.dtype), alpha, conditioning.to(self.dtype))
        return answer


@pytest.fixture(scope="module", autouse=True)
def sketched() -> Iterator[None]:
    """Put the sketch in the place of `tiny-digits`, in this process, for the tests of a module.

    A `conftest.py` imports it for all modules beside it; one that needs the network has a fixture
    of this name.
    """
    backbones = load_plugins().backbones
    spec = replace(backbones.get("tiny-digits"), target="helpers.sketch:Sketch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones._specs, "tiny-digits", spec)
        patch.setattr(embeddings, "CONDITIONING_FORMAT", "sketch")  # the network has kept prompts
        yield
