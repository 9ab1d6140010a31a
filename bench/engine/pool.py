"""The conditioning of a run's prompts, kept where it fits, and cut into batches from there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bench.engine.transfer import to_device
from bench.engine.trees import Tree, mapped, rows, size

SHARE = 10  # a GPU holds a conditioning that takes no more than this part of its memory


class Pool:
    """The prompts' conditioning: on the device, or on the host (in memory, or a mapped file).

    Args:
        tree: on the host, a row for each prompt.
        device: where batches are wanted.

    Attributes:
        near: whether it is on the device.
    """

    def __init__(self, tree: Tree, device: torch.device) -> None:
        self.device = device
        self.near = device.type != "cuda" or size(tree) <= _room(device)
        self.tree = mapped(lambda leaf: leaf.to(device), tree) if self.near else tree

    def take(self, prompts: NDArray[np.int64], there: torch.Tensor) -> Tree:
        """Return rows on the device.

        Args:
            prompts: int64 [B], on the host.
            there: the same on the device.
        """
        if self.near:
            return rows(self.tree, there)
        # A batch repeats few prompts; each crosses once.
        distinct, place = np.unique(prompts, return_inverse=True)
        moved = mapped(self._moved, rows(self.tree, torch.from_numpy(distinct)))
        return rows(moved, to_device(place, self.device))

    def part(self, chosen: slice) -> Tree:
        """Return a run of prompts on the device."""
        return mapped(lambda leaf: leaf.to(self.device), rows(self.tree, chosen))

    def _moved(self, leaf: torch.Tensor) -> torch.Tensor:
        return leaf.pin_memory().to(self.device, non_blocking=True)


def _room(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory) // SHARE
