"""Denoisers of the study, the errors of all their classes, and the first-order look at them.

A model is a function `denoise(x_t, angle, conditioning)` and a conditioning, one row per class. At
an angle, x_t = cos · x_0 + sin · eps, and the target is the velocity, cos · eps - sin · x_0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from glyph_networks import ANGLES, LEVELS, Trained
from glyphs import distinct_glyphs
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.contracts.backbone import Denoiser
from bench.contracts.draw_order import timestep_grid
from bench.contracts.levels import Levels
from bench.contracts.specs import BackboneSpec, Parameter
from bench.discovery.loading import load_plugins

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """The draws of a seed: their noise, float32 [N, 256], and their angles, float32 [N]."""

    noise: Tensor
    angles: Tensor

    @classmethod
    def of(cls, seed: int, n: int) -> Draws:
        """Return n draws on the grid of levels."""
        noise = np.random.default_rng([seed, n]).standard_normal((n, 256), dtype=np.float32)
        angles = ANGLES[timestep_grid(n, LEVELS)]
        return cls(torch.from_numpy(noise), torch.tensor(angles, dtype=torch.float32))

    def rows(self, chosen: Ints) -> Draws:
        """Return some of the draws."""
        return Draws(self.noise[chosen], self.angles[chosen])


class Model:
    """A denoiser with the conditioning of all classes, float32 [P, ...]."""

    half = False  # whether errors are computed in bfloat16, which is several times as fast

    def __init__(
        self, name: str, denoise: Callable[[Tensor, Tensor, Tensor], Tensor], told: Tensor
    ) -> None:
        self.name, self.denoise, self.told = name, denoise, told

    def add(self, groups: Sequence[Ints]) -> None:
        """Append a row per group of classes: the mean of what the model is told of them."""
        self.told = torch.cat([self.told, *(self.told[g].mean(dim=0)[None] for g in groups)])

    def errors(self, x_0: Tensor, draws: Draws) -> NDArray[np.float32]:
        """Return the error of every row on every draw, float32 [P, N], of one picture [256]."""
        x_t, target = noised(x_0, draws)
        columns = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, self.half):
            for row in range(len(x_t)):
                seen = self.denoise(x_t[row : row + 1], draws.angles[row : row + 1], self.told)
                columns.append((seen.float() - target[row]).square().mean(dim=1))
        return torch.stack(columns, dim=1).numpy()

    def first_order(self, x_0: Tensor, draws: Draws, rows: Ints, kept: Ints) -> Floats:
        """Return first-order errors of `rows` at the mean of the rows `kept`, [len(rows), n].

        They are e(c_0) + <gradient of e at c_0, c - c_0>, one forward and backward pass a draw.
        """
        x_t, target = noised(x_0, draws)
        centre = self.told[kept].mean(dim=0)
        at = centre.expand(len(x_t), *centre.shape).clone().requires_grad_()
        error = (self.denoise(x_t, draws.angles, at) - target).square().mean(dim=1)
        (slope,) = torch.autograd.grad(error.sum(), at)
        away = (self.told[rows] - centre).flatten(1)
        return (error.detach() + away @ slope.flatten(1).T).double().numpy()


def noised(x_0: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Return x_t and the target of a picture on some draws, float32 [n, 256] each."""
    alpha, sigma = draws.angles.cos()[:, None], draws.angles.sin()[:, None]
    return alpha * x_0 + sigma * draws.noise, alpha * draws.noise - sigma * x_0


class Analytic(Model):
    """The optimal denoiser of classes N(mu_c, s² I), where mu_c is the picture of class c.

    With v = alpha² s² + sigma², the posterior mean of x_0 is mu + (alpha s² / v)(x_t - alpha mu),
    and the velocity misses its target by a eps - b (x_0 - mu), a = alpha s² / v, b = sigma / v.
    So with d = mu_c - x_0, an error is |a eps + b d|² / D, the gap between two classes is expected
    to be b² (|d_1|² - |d_2|²) / D, with variance 4 a² b² |mu_1 - mu_2|² / D² over the noise. The
    posterior prefers the class with the smallest |d|; that class is called exact.
    """

    def __init__(self, means: NDArray[np.float32], spread: float) -> None:
        super().__init__(f"analytic, s = {spread:g}", self.velocity, torch.from_numpy(means))
        self.spread = spread

    def velocity(self, x_t: Tensor, angle: Tensor, mean: Tensor) -> Tensor:
        """Return the optimal prediction of the velocity, [B, 256]."""
        alpha, sigma = angle.cos()[:, None], angle.sin()[:, None]
        share = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)
        return (alpha * x_t - mean - share * (x_t - alpha * mean)) / sigma

    def factors(self, angles: Floats) -> tuple[Floats, Floats]:
        """Return a and b at some angles."""
        alpha, sigma = np.cos(angles), np.sin(angles)
        v = alpha**2 * self.spread**2 + sigma**2
        return alpha * self.spread**2 / v, sigma / v

    def errors(self, x_0: Tensor, draws: Draws) -> NDArray[np.float32]:
        """Return the errors in closed form, with one matrix product for all classes."""
        a, b = (torch.from_numpy(f).float()[:, None] for f in self.factors(draws.angles.numpy()))
        away = self.told - x_0
        own = (a * draws.noise).square().sum(dim=1)
        crossed = away @ (2 * a * b * draws.noise).T
        far = away.square().sum(dim=1)[:, None] * b.T**2
        return ((own + crossed + far) / x_0.numel()).numpy()

    def gaps(self, x_0: Tensor, winner: int, angles: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance of each class's gap from `winner` over draws, float64 [P] each.

        Draws have one of the angles and independent noise; the variance is that of a grid, within
        the levels.
        """
        a, b = self.factors(angles)
        away = (self.told - x_0).double().square().sum(dim=1).numpy()
        apart = (self.told - self.told[winner]).double().square().sum(dim=1).numpy()
        size = x_0.numel()
        mean = np.mean(b**2) * (away - away[winner]) / size
        return mean, 4 * np.mean(a**2 * b**2) * apart / size**2

    def exact(self, x_0: Tensor) -> int:
        """Return the class with the largest posterior probability."""
        return int((self.told - x_0).square().sum(dim=1).argmin())


def network_model(trained: Trained) -> Model:
    """Return a trained network as a model, whose errors are computed in bfloat16."""
    model = Model(trained.network.kind, trained.network, trained.conditioning())
    model.half = True
    return model


class AnalyticBackbone(Denoiser):
    """The analytic denoiser as a backbone; a text is the name of a glyph."""

    latent_shape, resolution, can_linearise = (1, 16, 16), 16, True
    levels = Levels(np.cos(ANGLES), np.sin(ANGLES), ANGLES, -np.sin(ANGLES), np.cos(ANGLES))

    def __init__(self, weights: None, *, device: str, dtype: str, spread: float = 0.7) -> None:
        glyphs = distinct_glyphs()
        self.model = Analytic(glyphs.pictures(), spread)
        self.row = {name: row for row, name in enumerate(glyphs.names)}
        self.device = torch.device("cpu")

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return pixels in [-1, 1], float32 [n, 1, 16, 16]."""
        pixels = np.stack([np.asarray(image.convert("L"), np.float32) for image in images])
        return torch.from_numpy(pixels / 127.5 - 1)[:, None]

    def encode_prompts(self, texts: Sequence[str]) -> Tensor:
        """Return the mean pictures of the classes with these names, float32 [n, 256]."""
        return self.model.told[[self.row[text] for text in texts]]

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Tensor) -> Tensor:
        """Return the velocity, [B, 1, 16, 16]."""
        return self.model.velocity(x_t.flatten(1), t, conditioning).reshape(x_t.shape)


def register_analytic() -> None:
    """Register the backbone `analytic` in this process."""
    spec = BackboneSpec(
        name="analytic", target="models:AnalyticBackbone",
        summary="optimal for normal classes of glyphs", trained_on=None,
        parameters={"spread": Parameter(0.7, "standard deviation within a class")},
    )  # fmt: skip
    load_plugins().backbones.add(spec, "many-classes")
