"""Linearisations: the errors of all prompts, to first order, from one gradient per draw.

e(c_0) + <grad e(c_0), c_p - c_0> for every prompt p, where c_0 is a mixture of the prompts. The
gradient is taken with respect to the conditioning alone, so no gradient of a parameter is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bench.contracts.strategy import Floats
from bench.engine.acceleration import with_gradients
from bench.engine.mixing import Mixing
from bench.engine.queue import filled_size
from bench.engine.scoring import Evaluator
from bench.engine.transfer import free_memory
from bench.engine.trees import grown

SHARE = 4  # a batch of linearisations is smaller by this factor: similar time, less memory
Leaves = dict[str, torch.Tensor]


class Lineariser:
    """First-order errors of all prompts, for batches of (image, draw, mixture).

    Args:
        evaluator: evaluates cells, with a backbone that can linearise.
        cells: the engine's batch size; the batch size here is a share of it until it is measured.
        cost: cost of one linearised draw without guidance, in evaluations.

    Attributes:
        batch_size: draws per batch; halved for good when memory runs out.
        out_of_memory: called with the new size when that happens.
        cost: present cost of one linearised draw, in evaluations: one more under guidance, and one
            more once activations are computed a second time because memory did not hold them.
    """

    def __init__(self, evaluator: Evaluator, cells: int, cost: float) -> None:
        self.evaluator, self.backbone = evaluator, evaluator.backbone
        self.cost = cost + evaluator.passes - 1
        self.batch_size = max(1, cells // SHARE)
        self.out_of_memory: Callable[[int], None] = lambda size: None
        self._saving = False
        self._made: Mixing | None = None

    @property
    def mixing(self) -> Mixing:
        """The mixtures, made on demand: not every conditioning can be mixed."""
        if self._made is None:
            self._made = Mixing(self.evaluator.pool, self.backbone.mixes_rest())
        return self._made

    def first_order(
        self,
        draw: torch.Tensor,
        latents: torch.Tensor,
        eps: torch.Tensor,
        mixtures: Sequence[Floats],
        of_mixture: torch.Tensor,
    ) -> torch.Tensor:
        """Return first-order errors, float32 [B, P].

        Batches are filled up, and halved when memory runs out, as those of evaluations are.

        Args:
            draw: int64 [B], B at most `batch_size` as it was when the batch was cut.
            latents: float32 [B, C, H, W].
            eps: float32 [B, C, H, W], the noise.
            mixtures: float64 [P] each.
            of_mixture: int64 [B], the mixture at which each draw is linearised.
        """
        mixed = [self.mixing.mix(mixture) for mixture in mixtures]
        centres = {path: torch.cat([leaves[path] for leaves in mixed]) for path in mixed[0]}
        references = {path: leaf[of_mixture] for path, leaf in centres.items()}
        return self._fitting(draw, latents, eps, references)

    def _fitting(
        self, draw: torch.Tensor, latents: torch.Tensor, eps: torch.Tensor, references: Leaves
    ) -> torch.Tensor:
        count, size = len(draw), self.batch_size

        def part(
            rows: torch.Tensor | slice,
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Leaves]:
            chosen = {path: leaf[rows] for path, leaf in references.items()}
            return draw[rows], latents[rows], eps[rows], chosen

        if count > size:
            parts = [slice(i, i + size) for i in range(0, count, size)]
            return torch.cat([self._fitting(*part(rows)) for rows in parts])
        filled = torch.arange(filled_size(count, size), device=draw.device).clamp(max=count - 1)
        try:
            return self._values(*part(filled))[:count]
        except torch.OutOfMemoryError:
            if size == 1 and not self._save_memory():
                raise
        free_memory(self.backbone.device)
        if size > 1:
            self.batch_size = max(1, min(size, count) // 2)
            self.out_of_memory(self.batch_size)
        return self._fitting(draw, latents, eps, references)

    @torch.inference_mode()
    def rehearse(self, size: int) -> None:
        """Linearise a batch of `size` made-up draws and wait for it; OutOfMemoryError passes."""
        draw = torch.zeros(size, dtype=torch.int64, device=self.backbone.device)
        latents = torch.zeros(size, *self.backbone.latent_shape, device=self.backbone.device)
        first = self.mixing.mix(np.eye(1, self.mixing.prompts)[0])
        references = {path: leaf.expand(size, *leaf.shape[1:]) for path, leaf in first.items()}
        batch = draw, latents, torch.zeros_like(latents), references
        try:
            self._values(*batch).cpu()
            return
        except torch.OutOfMemoryError:
            if size > 1 or not self._save_memory():
                raise
        free_memory(self.backbone.device)
        self._values(*batch).cpu()

    def _save_memory(self) -> bool:
        """Have the backbone keep less for a backward pass; False if it cannot do so (again)."""
        if self._saving or not self.backbone.save_memory():
            return False
        self._saving = True
        self.cost += 1
        return True

    def _values(
        self, draw: torch.Tensor, latents: torch.Tensor, eps: torch.Tensor, references: Leaves
    ) -> torch.Tensor:
        mixing = self.mixing
        # The engine works in inference mode, whose tensors cannot be kept for a backward pass.
        with with_gradients(self.backbone):
            at = {path: leaf.clone() for path, leaf in references.items()}
            inputs = [at[path].requires_grad_() for path in mixing.floating]
            errors = self.evaluator.errors_at(draw, latents.clone(), eps.clone(), grown(at))
            # The gradient of the sum over the latent: the mean's would vanish in half precision.
            elements = latents[0].numel()
            with self.backbone.guard("the gradient to its conditioning", torch.OutOfMemoryError):
                gradients = torch.autograd.grad(
                    errors.sum() * elements, inputs, allow_unused=True, materialize_grads=True
                )
        slopes = {
            path: gradient.float() / elements
            for path, gradient in zip(mixing.floating, gradients, strict=True)
        }
        return mixing.first_order(errors.detach(), slopes, references)
