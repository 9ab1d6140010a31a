"""Linearisations: the errors of all prompts, to first order, from one gradient per draw.

e(c_0) + <grad e(c_0), c_p - c_0> for every prompt p, where c_0 is a mixture of the prompts. The
gradient is taken with respect to the conditioning alone, so no gradient of a parameter is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from bench.contracts.strategy import Floats
from bench.engine.acceleration import with_gradients
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.queue import filled_size
from bench.engine.transfer import free_memory

SHARE = 4  # a batch of linearisations is that much smaller: about the time, and less to keep
MIXED = 64  # mixtures whose conditioning is kept; a strategy may have some of each image's own


class ErrorsAt(Protocol):
    """Errors of cells whose conditioning is given, float32 [B], as the engine evaluates them."""

    def __call__(
        self, draw: torch.Tensor, latents: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Take int64 [B], float32 [B, C, H, W] and [B, L, D]."""


class Lineariser:
    """First-order errors of all prompts, for batches of (image, draw, mixture).

    Args:
        backbone: one that can linearise.
        errors_at: evaluates cells.
        conditioning: [P, L, D], the embedded prompts.
        cells: the engine's batch size, of which this one's is a share until it is measured.
        cost: what one linearised draw counts as, in evaluations.

    Attributes:
        batch_size: draws per batch; halved for good when memory runs out.
        out_of_memory: called with the new size when that happens.
        cost: what one linearised draw counts as now: one evaluation more where activations are
            computed a second time, since memory did not hold them.
    """

    def __init__(
        self,
        backbone: CheckedDenoiser,
        errors_at: ErrorsAt,
        conditioning: torch.Tensor,
        cells: int,
        cost: float,
    ) -> None:
        self.backbone, self.errors_at, self.cost = backbone, errors_at, cost
        self.conditioning = conditioning
        self.batch_size = max(1, cells // SHARE)
        self.out_of_memory: Callable[[int], None] = lambda size: None
        self._saving = False
        self._offsets: tuple[torch.Tensor, torch.Tensor] | None = None
        self._mixed: dict[bytes, torch.Tensor] = {}

    def mix(self, mixture: Floats) -> torch.Tensor:
        """Return c_0 of a mixture, [L, D] in the conditioning's dtype."""
        key = np.asarray(mixture, np.float32).tobytes()
        if key not in self._mixed:
            if len(self._mixed) >= MIXED:
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
        self, draw: torch.Tensor, latents: torch.Tensor, references: torch.Tensor
    ) -> torch.Tensor:
        """Return first-order errors, float32 [B, P].

        Batches are filled up, and halved when memory runs out, as those of evaluations are.

        Args:
            draw: int64 [B], B at most `batch_size` as it was when the batch was cut.
            latents: float32 [B, C, H, W].
            references: [B, L, D], each draw's c_0.
        """
        count, size = len(draw), self.batch_size
        if count > size:
            parts = [slice(i, i + size) for i in range(0, count, size)]
            return torch.cat([self.first_order(draw[p], latents[p], references[p]) for p in parts])
        filled = torch.arange(filled_size(count, size), device=draw.device).clamp(max=count - 1)
        try:
            return self._values(draw[filled], latents[filled], references[filled])[:count]
        except torch.OutOfMemoryError:
            if size == 1 and not self._save_memory():
                raise
        free_memory(self.backbone.device)
        if size > 1:
            self.batch_size = max(1, min(size, count) // 2)
            self.out_of_memory(self.batch_size)
        return self.first_order(draw, latents, references)

    @torch.inference_mode()
    def rehearse(self, size: int) -> None:
        """Linearise a batch of `size` made-up draws and wait for it, to time or to warm up.

        Raises:
            torch.OutOfMemoryError: that many do not fit.
        """
        draw = torch.zeros(size, dtype=torch.int64, device=self.backbone.device)
        latents = torch.zeros(size, *self.backbone.latent_shape, device=self.backbone.device)
        batch = draw, latents, self.conditioning[:1].expand(size, -1, -1)
        try:
            self._values(*batch).cpu()
            return
        except torch.OutOfMemoryError:
            if size > 1 or not self._save_memory():
                raise
        free_memory(self.backbone.device)
        self._values(*batch).cpu()

    def _save_memory(self) -> bool:
        """Have the backbone keep less for a backward pass; False if it cannot, or does already."""
        if self._saving or not self.backbone.save_memory():
            return False
        self._saving = True
        self.cost += 1
        return True

    def _values(
        self, draw: torch.Tensor, latents: torch.Tensor, references: torch.Tensor
    ) -> torch.Tensor:
        # The engine works in inference mode, whose tensors cannot be kept for a backward pass.
        with with_gradients(self.backbone):
            at = references.clone().requires_grad_()
            errors = self.errors_at(draw, latents.clone(), at)
            # Of the sum over the latent: the mean's gradient would vanish in half precision.
            elements = latents[0].numel()
            with self.backbone.guard("the gradient to its conditioning", torch.OutOfMemoryError):
                (gradient,) = torch.autograd.grad(errors.sum() * elements, at)
        slope = gradient.float().flatten(1) / elements
        centre, offsets = self._centred()
        at_centre = errors.detach() - (slope * (references.float().flatten(1) - centre)).sum(dim=1)
        return at_centre[:, None] + slope @ offsets.T
