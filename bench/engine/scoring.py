"""The mathematics of a cell: noising, the perfect answer, the error. Pure functions, float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.contracts.levels import Levels
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
