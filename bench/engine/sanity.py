"""A check without labels of whether a denoiser, its noise levels and a run's images fit together.

The denoiser predicts one noise for each of a few images at five noise levels, at the declared times
and at scaled ones. Two figures are compared with what any denoiser that fits would reach:

* W: the squared error over that of the best affine guess of the target from x_t, for latents of
  which only mean and variance are known. A denoiser that fits knows more than these.
* S: the error at a scaled time over the error at the declared one. A denoiser is best at the time
  for which it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.contracts.levels import Levels
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.trees import Tree, rows

Errors = NDArray[np.float64]

MAX_IMAGES, MIN_SCALED = 8, 4  # S of fewer images is too noisy
SNR = (8.0, 3.0, 1.0, 0.4, 0.1)  # signal-to-noise ratios alpha² / sigma² of the levels
MIN_SIGNAL = 0.01  # smallest alpha²; below, the target hardly depends on the image
SLOWER, FASTER = (0.5, 0.7, 0.85), (1.2, 1.4, 1.8)  # factors of the time
WORST_GUESS = 1.0  # median W from which on the denoiser does not fit
BEST_ELSEWHERE = 0.9  # S below which another time is clearly better than the declared one


def affordable(evaluations: float) -> tuple[int, bool]:
    """Return the number of images that can be checked for so much, and whether S is asked for."""
    w, both = len(SNR), len(SNR) * (1 + len(SLOWER) + len(FASTER))
    if (images := int(evaluations // both)) >= MIN_SCALED:
        return min(images, MAX_IMAGES), True
    return min(int(evaluations // w), MAX_IMAGES), False


@dataclass(frozen=True)
class ModelFit:
    """How well a denoiser fits its noise levels and images."""

    guess: float  # median of W over images and levels
    elsewhere: tuple[float, ...]  # S of the levels: the lowest of the worse side; empty: unknown

    @property
    def problem(self) -> str | None:
        """What does not fit, as a sentence; None if nothing was found."""
        if self.guess >= WORST_GUESS:
            return (
                "The model predicts these images no better than a linear guess"
                f" ({self.guess:.2g} of its squared error): its prediction type, scaling factor,"
                " weights or the images do not fit."
            )
        if _neighbours_below(self.elsewhere):
            return (
                "The noise schedule does not look like the one that the network was trained with:"
                f" told of another noise level, it errs {min(self.elsewhere):.2g} times as much."
            )
        return None


def _neighbours_below(ratios: tuple[float, ...]) -> bool:
    below = np.asarray(ratios) < BEST_ELSEWHERE
    return bool((below[:-1] & below[1:]).any())


@torch.inference_mode()
def check_fit(
    denoiser: CheckedDenoiser, latents: torch.Tensor, prompt: Tree, batch_size: int, scaled: bool
) -> ModelFit | None:
    """Return how well a denoiser fits its levels and `latents`, float32 [n, C, H, W] on its device.

    `prompt` is the conditioning of one prompt. It costs n · 5 evaluations, and seven times as many
    with `scaled`, which asks for S. None if no noise level is fit for it, or all latents are the
    same number.
    """
    levels = denoiser.levels
    chosen = _chosen_levels(levels)
    if not len(chosen) or len(levels) < 2 or not latents.var() > 0:
        return None
    eps = torch.from_numpy(_noise(tuple(latents.shape))).to(latents.device)
    inputs = _Inputs(denoiser, latents, eps, levels.rows(chosen), prompt, batch_size)
    errors = inputs.errors(1.0)  # [n, L]
    guess = float(np.median(errors / _affine_errors(levels.rows(chosen), latents)))
    sides: list[Errors] = []
    for factors in (SLOWER, FASTER) if scaled else ():
        ratios = [inputs.errors(factor).mean(axis=0) / errors.mean(axis=0) for factor in factors]
        sides.append(np.min(ratios, axis=0))
    if not sides:
        return ModelFit(guess, ())
    worst = min(sides, key=lambda side: np.min(np.maximum(side[:-1], side[1:]), initial=np.inf))
    return ModelFit(guess, tuple(worst.tolist()))


def _chosen_levels(levels: Levels) -> NDArray[np.int64]:
    """Return the level nearest to each of the signal-to-noise ratios, without repetitions."""
    with np.errstate(divide="ignore"):
        distance = np.abs(np.log(levels.snr)[:, None] - np.log(SNR))
    usable = np.isfinite(levels.snr) & (levels.alpha**2 >= MIN_SIGNAL)
    distance[~usable] = np.inf
    nearest = np.unique(distance.argmin(axis=0))
    return np.asarray(nearest[usable[nearest]], np.int64)


def _noise(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _affine_errors(levels: Levels, latents: torch.Tensor) -> Errors:
    """Return the mean squared error, float64 [L], of the best affine guess of the target from x_t.

    With x_t = α·x_0 + σ·ε, the target a·ε + b·x_0 and a variance s² of x_0 it is
    (a − b·σ/α)² · α²s² / (α²s² + σ²) per channel: a·ε + b·x_0 = a·x_t/σ + (b − a·α/σ)·x_0, and x_0
    given x_t has the variance s²σ² / (α²s² + σ²).
    """
    variance = latents.double().var(dim=(0, 2, 3), unbiased=False).cpu().numpy()
    alpha, sigma, a, b = (c[:, None] for c in (levels.alpha, levels.sigma, levels.q, levels.p))
    signal = alpha**2 * variance
    error = (a - b * sigma / alpha) ** 2 * signal / (signal + sigma**2)
    return np.asarray(error.mean(axis=1))


@dataclass(frozen=True)
class _Inputs:
    """The same noisy latents for every time."""

    denoiser: CheckedDenoiser
    latents: torch.Tensor  # [n, C, H, W]
    eps: torch.Tensor
    levels: Levels  # the L chosen ones
    prompt: Tree
    batch_size: int

    def errors(self, factor: float) -> Errors:
        """Return the squared errors, float64 [n, L], at `factor` times the declared times."""
        return np.stack([self._of_level(row, factor) for row in range(len(self.levels))], axis=1)

    def _of_level(self, row: int, factor: float) -> Errors:
        level = self.levels
        x_t = level.alpha[row] * self.latents + level.sigma[row] * self.eps
        wanted = level.p[row] * self.latents + level.q[row] * self.eps
        time = self._time(level.time[row] * factor)
        errors = []
        for start in range(0, len(x_t), self.batch_size):
            part = slice(start, start + self.batch_size)
            count = len(x_t[part])
            conditioning = rows(
                self.prompt, torch.zeros(count, dtype=torch.int64, device=x_t.device)
            )
            answer = self.denoiser.denoise(x_t[part], time.expand(count), conditioning)
            errors.append((answer.float() - wanted[part]).double().square().mean(dim=(1, 2, 3)))
        return torch.cat(errors).cpu().numpy()

    def _time(self, time: float) -> torch.Tensor:
        """Return a time within those of the table, [1]: int64 if they are whole, else float32."""
        table = self.denoiser.levels.time
        clipped = np.clip(time, table.min(), table.max())
        whole = np.issubdtype(table.dtype, np.integer)
        tensor = torch.tensor([round(float(clipped)) if whole else float(clipped)])
        return (tensor if whole else tensor.float()).to(self.latents.device)
