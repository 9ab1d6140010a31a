"""A small rectified flow in the latents of an autoencoder, as SD 3 is one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.contracts.levels import Levels, flow_levels
from bench.engine.images import preprocess

SHIFT, STEPS, SIDE = 3.0, 1000, 16  # the initial table of SD 3's scheduler


def edm_sigmas(count: int) -> np.ndarray:
    """Return EDM's levels, float64 [count] (Karras et al., 2022, eq. 5)."""
    return np.linspace(0.002 ** (1 / 7), 80.0 ** (1 / 7), count) ** 7


class SmallFlow:
    """Answers eps − x_0; the prompt's characters shift its hidden layer."""

    latent_shape, resolution = (4, 8, 8), SIDE

    def __init__(self, weights: Any, *, device: str, dtype: str) -> None:
        self.device = torch.device(device)
        self.levels = flow_levels({"num_train_timesteps": STEPS, "shift": SHIFT})
        torch.manual_seed(1)
        self.encoder = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1).requires_grad_(False)
        self.first = torch.nn.Conv2d(4, 16, 3, padding=1).requires_grad_(False)
        self.last = torch.nn.Conv2d(16, 4, 3, padding=1).requires_grad_(False)

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self.posterior(images)[0]

    def posterior(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.encoder(preprocess(images, SIDE)).chunk(2, dim=1)
        return mean, torch.exp(log_variance / 2)

    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        codes = [[np.cos(i * sum(map(ord, text))) for i in range(16)] for text in texts]
        return torch.tensor(codes, dtype=torch.float32)

    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: torch.Tensor) -> Any:
        shift = conditioning + t[:, None] / 1000
        return self.last(torch.tanh(self.first(x_t) + shift[:, :, None, None]))


class Turning(SmallFlow):
    """Its levels are not in the order of their noise, and it says so before it is made."""

    @staticmethod
    def level_table(weights: Any, **parameters: Any) -> Levels:
        alpha = np.array([0.9, 0.4, 0.5, 0.1])
        return Levels(alpha, 1 - alpha, np.arange(4), -np.ones(4), np.ones(4))

    def __init__(self, weights: Any, *, device: str, dtype: str) -> None:
        raise AssertionError("made")
