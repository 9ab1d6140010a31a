"""Linearisations: the errors of all prompts, to first order, from one gradient a draw.

e(c_0) + <grad e(c_0), c_p - c_0> for every prompt p, where c_0 is a mixture of the prompts. The
gradient is taken with respect to the conditioning alone, so no gradient of a parameter is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bench.backbone import Denoiser
from bench.strategy import Floats

SHARE = 4  # a batch of linearisations is that much smaller: about the time, and less to keep
REPEATS = 3  # timings of each kind after a first one
ENOUGH = 5.0  # seconds of timing after which none is repeated


class ErrorsAt(Protocol):
    """Errors of cells whose conditioning is given, float32 [B], as the engine evaluates them."""

    def __call__(
        self, draws: NDArray[np.int64], latents: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Take int64 [B], float32 [B, C, H, W] and [B, L, D]."""


class Lineariser:
    """First-order errors of all prompts, for batches of (image, draw, mixture).

    Args:
        backbone: one that can linearise.
        errors_at: evaluates cells.
        conditioning: [P, L, D], the embedded prompts.
        cells: the engine's batch size.

    Attributes:
        batch_size: draws a batch; halved for good when memory runs out.
        cost: what one linearised draw takes, in evaluations: measured on this device with the
            first batch; 0 before.
    """

    def __init__(
        self, backbone: Denoiser, errors_at: ErrorsAt, conditioning: torch.Tensor, cells: int
    ) -> None:
        self.backbone, self.errors_at, self.conditioning = backbone, errors_at, conditioning
        self.cells = cells
        self.batch_size = max(1, cells // SHARE)
        self.cost = 0.0
        self._saving = False
        self._offsets: tuple[torch.Tensor, torch.Tensor] | None = None
        self._mixed: dict[bytes, torch.Tensor] = {}

    def mix(self, mixture: Floats) -> torch.Tensor:
        """Return c_0 of a mixture, [L, D] in the conditioning's dtype."""
        key = np.asarray(mixture, np.float32).tobytes()
        if key not in self._mixed:
            if len(self._mixed) > self.cells:  # a strategy with mixtures of each image's own
                self._mixed.clear()
            weights = torch.from_numpy(np.asarray(mixture, np.float32)).to(self.backbone.device)
            centre, offsets = self._centred()
            mixed = (centre + weights @ offsets).reshape(self.conditioning.shape[1:])
            self._mixed[key] = mixed.to(self.conditioning.dtype)
        return self._mixed[key]

    def _centred(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prompts' mean, float32 [L D], and their offsets from it, [P, L D].

        What all prompts share is large (the start token's embedding) and would cost digits.
        """
        if self._offsets is None:
            flat = self.conditioning.float().flatten(1)
            centre = flat.mean(dim=0)
            self._offsets = centre, flat - centre
        return self._offsets

    def first_order(
        self, draws: NDArray[np.int64], latents: torch.Tensor, references: torch.Tensor
    ) -> torch.Tensor:
        """Return first-order errors, float32 [B, P].

        Batches are filled up, and halved when memory runs out, as those of evaluations are.

        Args:
            draws: int64 [B], B at most `batch_size` as it was when the batch was cut.
            latents: float32 [B, C, H, W].
            references: [B, L, D], each draw's c_0.
        """
        count, size = len(draws), self.batch_size
        if count > size:
            parts = [slice(i, i + size) for i in range(0, count, size)]
            return torch.cat([self.first_order(draws[p], latents[p], references[p]) for p in parts])
        filled = np.minimum(np.arange(size), count - 1)
        batch = draws[filled], latents[filled], references[filled]
        try:
            if not self.cost:
                self.cost = self._measure(*batch)
            return self._values(*batch)[:count]
        except torch.OutOfMemoryError:
            if size > 1:
                self.batch_size = max(1, min(size, count) // 2)
            elif self._saving or not hasattr(self.backbone, "save_memory"):
                raise
            else:
                self.backbone.save_memory()
                self._saving, self.cost = True, 0.0
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()
        return self.first_order(draws, latents, references)

    def _values(
        self, draws: NDArray[np.int64], latents: torch.Tensor, references: torch.Tensor
    ) -> torch.Tensor:
        # The engine works in inference mode, whose tensors cannot be kept for a backward pass.
        with torch.inference_mode(False), torch.enable_grad():
            at = references.clone().requires_grad_()
            errors = self.errors_at(draws, latents.clone(), at)
            # Of the sum over the latent: the mean's gradient would vanish in half precision.
            elements = latents[0].numel()
            (gradient,) = torch.autograd.grad(errors.sum() * elements, at)
        slope = gradient.float().flatten(1) / elements
        centre, offsets = self._centred()
        at_centre = errors.detach() - (slope * (references.float().flatten(1) - centre)).sum(dim=1)
        return at_centre[:, None] + slope @ offsets.T

    def _measure(
        self, draws: NDArray[np.int64], latents: torch.Tensor, references: torch.Tensor
    ) -> float:
        """Return the time of one linearised draw over that of one evaluation, in full batches.

        Timings of both alternate, and the least of each counts. On a CPU it is the processor's
        time: other processes do not enter it.
        """
        many = np.arange(self.cells) % len(draws)
        cells = draws[many], latents[many], references[many]
        linear: list[float] = []
        plain: list[float] = []
        while len(linear) <= REPEATS and sum(linear) + sum(plain) < ENOUGH:
            linear.append(self._seconds(lambda: self._values(draws, latents, references)))
            try:
                plain.append(self._seconds(lambda: self.errors_at(*cells)))
            except torch.OutOfMemoryError:
                if self.cells <= len(draws):
                    raise
                self.cells //= 2
                return self._measure(draws, latents, references)
        return (min(linear) / len(draws)) / (min(plain) / self.cells)

    def _seconds(self, work: Callable[[], torch.Tensor]) -> float:
        clock = time.process_time if self.backbone.device.type == "cpu" else time.perf_counter
        started = clock()
        work()[0].cpu()  # waits for the device
        return clock() - started
