"""The mathematics of a cell: noising, the target, the error. Pure functions, all float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")


@dataclass(frozen=True)
class Coefficients:
    """What each draw multiplies with, float32 [N].

    x_t = alpha · x_0 + sigma · eps. `factor` turns a difference of predictions into the space in
    which the error is measured.
    """

    alpha: torch.Tensor
    sigma: torch.Tensor
    factor: torch.Tensor


def coefficients(
    alphas_cumprod: NDArray[np.floating[Any]],
    timesteps: NDArray[np.int64],
    prediction_type: str,
    space: str,
    device: torch.device,
) -> Coefficients:
    """Return the coefficients of the draws' timesteps, computed in float64 and kept in float32.

    The reference implementation computes them in float16, which is wrong by 7 % at t = 0 and 1.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"prediction type {prediction_type!r} is none of {PREDICTION_TYPES}")
    abar = np.asarray(alphas_cumprod, dtype=np.float64)[timesteps]
    if prediction_type == "flow":
        alpha, sigma = abar, 1.0 - abar
    else:
        alpha, sigma = np.sqrt(abar), np.sqrt(1.0 - abar)
    factor = _space_factor(prediction_type, space, alpha, sigma)
    as_tensor = [torch.from_numpy(v.astype(np.float32)).to(device) for v in (alpha, sigma, factor)]
    return Coefficients(*as_tensor)


def _space_factor(
    prediction_type: str, space: str, alpha: NDArray[np.float64], sigma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Differences of eps, x_0 and v at one x_t are multiples of each other; return the multiple.

    From x_t = alpha x_0 + sigma eps and v = alpha eps - sigma x_0 (Salimans & Ho 2022), at
    alpha² + sigma² = 1: d_eps = alpha d_v = -(alpha / sigma) d_x0. For a flow model, v = eps - x_0
    and alpha + sigma = 1: d_eps = alpha d_v and d_x0 = -sigma d_v. So the space *is* a weighting
    of the timesteps: the squared eps-error is alpha² times the squared v-error.
    """
    one = np.ones_like(alpha)
    per_v = {"epsilon": alpha, "sample": -sigma, "v": one}  # d_space = per_v · d_v
    own = {"v_prediction": "v", "flow": "v"}.get(prediction_type, prediction_type)
    return one if space in ("prediction", own) else per_v[space] / per_v[own]


def add_noise(
    x_0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return x_t, float32 [B, C, H, W]; `alpha` and `sigma` are [B]."""
    return _wide(alpha) * x_0 + _wide(sigma) * eps


def target(
    prediction_type: str,
    x_0: torch.Tensor,
    eps: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
) -> torch.Tensor:
    """Return what a perfect model would predict, float32 [B, C, H, W]."""
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "sample":
        return x_0
    if prediction_type == "flow":
        return eps - x_0
    return _wide(alpha) * eps - _wide(sigma) * x_0


def cell_errors(
    prediction: torch.Tensor, wanted: torch.Tensor, factor: torch.Tensor, loss: str
) -> torch.Tensor:
    """Return each cell's error, float32 [B]: the loss, averaged over the latent.

    Args:
        prediction: [B, C, H, W] in the model's dtype.
        wanted: float32 [B, C, H, W].
        factor: float32 [B], from `Coefficients`.
        loss: `l2` (squared), `l1` (absolute) or `huber` (delta 1).
    """
    difference = (prediction.float() - wanted) * _wide(factor)
    if loss == "l2":
        values = difference.square()
    elif loss == "l1":
        values = difference.abs()
    else:
        values = F.huber_loss(difference, torch.zeros_like(difference), reduction="none")
    return values.flatten(1).mean(dim=1)


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]
