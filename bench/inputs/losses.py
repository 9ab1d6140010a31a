"""The losses: how the difference between answer and truth becomes the error of a cell.

A loss is one name and one case here. Help, refusals and the check of types follow from both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

if TYPE_CHECKING:
    import torch

Loss = Literal["l2", "l1", "huber", "norm"]


def cell_loss(difference: torch.Tensor, loss: Loss) -> torch.Tensor:
    """Return the error of each cell, float32 [B].

    Args:
        difference: d, float32 [B, C, H, W].
        loss: `l2`, the mean of d²; `l1`, of |d|; `huber`, of Huber's loss with delta 1; `norm`, the
            square root of the *sum* of d².
    """
    match loss:
        case "l2":
            return difference.square().flatten(1).mean(dim=1)
        case "l1":
            return difference.abs().flatten(1).mean(dim=1)
        case "huber":  # d² / 2 up to 1, |d| − 1/2 beyond
            size = difference.abs()
            within = size.clamp(max=1.0)
            return (within * (size - within / 2)).flatten(1).mean(dim=1)
        case "norm":
            return difference.square().flatten(1).sum(dim=1).sqrt()
        case _:
            assert_never(loss)
