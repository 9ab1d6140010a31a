"""A cell's error: noise, prediction and difference, in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.contracts.levels import Levels
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.noising import Noise
from bench.engine.queue import Batch
from bench.engine.transfer import Pool, to_device
from bench.engine.trees import Tree, mapped, rows
from bench.inputs.estimand import Loss, cell_loss, space_factor


@dataclass(frozen=True)
class Coefficients:
    """What each draw multiplies with, float32 [N], and the time that the model is told.

    x_t = alpha · x_0 + sigma · eps, and a perfect model answers p · x_0 + q · eps. `factor` turns a
    difference of answers into one in the space in which the error is measured. `time` is int64
    where the model counts its levels, else float32.
    """

    alpha: torch.Tensor
    sigma: torch.Tensor
    p: torch.Tensor
    q: torch.Tensor
    factor: torch.Tensor
    time: torch.Tensor


def coefficients(
    levels: Levels, rows: NDArray[np.int64], space: str, device: torch.device
) -> Coefficients:
    """Return the coefficients of draws on these levels, computed in float64, kept in float32."""
    columns = (levels.alpha, levels.sigma, levels.p, levels.q, space_factor(levels, space))
    alpha, sigma, p, q, factor = (
        torch.from_numpy(column[rows].astype(np.float32)).to(device) for column in columns
    )
    return Coefficients(alpha, sigma, p, q, factor, times(levels, rows).to(device))


def times(levels: Levels, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return what the model is told on these levels: int64, or float32."""
    time = torch.from_numpy(levels.time[rows])
    return time.float() if time.is_floating_point() else time


def mixed(
    x_0: torch.Tensor, eps: torch.Tensor, of_x_0: torch.Tensor, of_eps: torch.Tensor
) -> torch.Tensor:
    """Return of_x_0 · x_0 + of_eps · eps, float32 [B, C, H, W]; the factors are [B].

    With (alpha, sigma) it is x_t, with (p, q) what a perfect model answers.
    """
    return _wide(of_x_0) * x_0 + _wide(of_eps) * eps


def cell_errors(
    answer: torch.Tensor, wanted: torch.Tensor, factor: torch.Tensor, loss: Loss
) -> torch.Tensor:
    """Return each cell's error, float32 [B].

    Args:
        answer: [B, C, H, W] in the model's dtype.
        wanted: float32 [B, C, H, W].
        factor: float32 [B], from `Coefficients`.
        loss: of the difference, times the factor; see `bench.inputs.estimand`.
    """
    return cell_loss((answer.float() - wanted) * _wide(factor), loss)


def guided(null: torch.Tensor, answer: torch.Tensor, weight: float) -> torch.Tensor:
    """Return null + weight · (answer − null), float32: classifier-free guidance (Ho & Salimans)."""
    return null.float() + weight * (answer.float() - null.float())


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


@dataclass(frozen=True)
class Scoring:
    """What an error is.

    Attributes:
        draws: the draws' coefficients.
        noise: where their noise comes from.
        loss: how a difference becomes an error.
        guidance: the weight of classifier-free guidance; None: there is none.
        null: its conditioning of no prompt, one row.
    """

    draws: Coefficients
    noise: Noise
    loss: Loss
    guidance: float | None = None
    null: Tree | None = None


class Evaluator:
    """Evaluates batches of cells.

    Args:
        backbone: the denoiser.
        conditioning: on the host, a row for each prompt.
        scoring: what an error is.

    Attributes:
        pool: the conditioning, for whoever wants its gradient.
        prompts: the same, or what the backbone's `fold_prompts` made of it.
        passes: forward passes per cell.
    """

    def __init__(self, backbone: CheckedDenoiser, conditioning: Tree, scoring: Scoring) -> None:
        self.backbone, self.scoring = backbone, scoring
        self.pool = self.prompts = Pool(conditioning, backbone.device)
        if self.pool.near:
            self.prompts = Pool(backbone.fold_prompts(self.pool.tree), backbone.device)
        self.null = None
        if scoring.guidance is not None and scoring.null is not None:
            self.null = mapped(lambda leaf: leaf.to(backbone.device), scoring.null)
        self.passes = 1 if self.null is None else 2

    def errors(self, batch: Batch) -> torch.Tensor:
        """Return the errors of the batch's cells, float32 [B]."""
        prompt, draw, image = to_device(batch.cells, self.backbone.device)
        eps = self.scoring.noise.of(batch.images, batch.cells[1:], draw)
        conditioning = self.prompts.take(batch.cells[0], prompt)
        return self.errors_at(draw, batch.latents[image], eps, conditioning)

    def errors_at(
        self, draw: torch.Tensor, latents: torch.Tensor, eps: torch.Tensor, conditioning: Tree
    ) -> torch.Tensor:
        """Return the errors, float32 [B], of cells whose noise and conditioning are given."""
        draws = self.scoring.draws
        x_t = mixed(latents, eps, draws.alpha[draw], draws.sigma[draw])
        time = draws.time[draw]
        answer = self.backbone.denoise(x_t, time, conditioning)
        if self.null is not None and self.scoring.guidance is not None:
            with torch.no_grad():
                null = rows(self.null, torch.zeros_like(draw))
                unguided = self.backbone.denoise(x_t, time, null)
            answer = guided(unguided, answer, self.scoring.guidance)
        wanted = mixed(latents, eps, draws.p[draw], draws.q[draw])
        return cell_errors(answer, wanted, draws.factor[draw], self.scoring.loss)
