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

SHARE = 4  # a batch of linearisations is that much smaller: about the time, and less to keep
Leaves = dict[str, torch.Tensor]


class Lineariser:
    """First-order errors of all prompts, for batches of (image, draw, mixture).

    Args:
        evaluator: evaluates cells, with a backbone that can linearise.
        cells: the engine's batch size, of which this one's is a share until it is measured.
        cost: what one linearised draw counts as, in evaluations.

    Attributes:
        batch_size: draws per batch; halved for good when memory runs out.
        out_of_memory: called with the new size when that happens.
        cost: what one linearised draw counts as now: one evaluation more where activations are
            computed a second time, since memory did not hold them, and one for guidance.
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
        """The mixtures; made when they are first needed, since not every conditioning has any."""
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
            eps: float32 [B, C, H, W], their noise.
            mixtures: float64 [P] each.
            of_mixture: int64 [B], which of them each draw is linearised at.
        """
        each = [self.mixing.mix(mixture) for mixture in mixtures]
        centres = {path: torch.cat([one[path] for one in each]) for path in each[0]}
        references = {path: leaf[of_mixture] for path, leaf in centres.items()}
        return self._fitting(draw, latents, eps, references)

    def _fitting(
        self, draw: torch.Tensor, latents: torch.Tensor, eps: torch.Tensor, references: Leaves
    ) -> torch.Tensor:
        count, size = len(draw), self.batch_size

        def some(
            part: torch.Tensor | slice,
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Leaves]:
            chosen = {path: leaf[part] for path, leaf in references.items()}
            return draw[part], latents[part], eps[part], chosen

        if count > size:
            parts = [slice(i, i + size) for i in range(0, count, size)]
            return torch.cat([self._fitting(*some(part)) for part in parts])
        filled = torch.arange(filled_size(count, size), device=draw.device).clamp(max=count - 1)
        try:
            return self._values(*some(filled))[:count]
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
        """Linearise a batch of `size` made-up draws and wait for it, to time or to warm up.

        Raises:
            torch.OutOfMemoryError: that many do not fit.
        """
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
        """Have the backbone keep less for a backward pass; False if it cannot, or does already."""
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
            asked = [at[path].requires_grad_() for path in mixing.floating]
            errors = self.evaluator.errors_at(draw, latents.clone(), eps.clone(), grown(at))
            # Of the sum over the latent: the mean's gradient would vanish in half precision.
            elements = latents[0].numel()
            with self.backbone.guard("the gradient to its conditioning", torch.OutOfMemoryError):
                gradients = torch.autograd.grad(
                    errors.sum() * elements, asked, allow_unused=True, materialize_grads=True
                )
        slopes = {
            path: gradient.float() / elements
            for path, gradient in zip(mixing.floating, gradients, strict=True)
        }
        return mixing.first_order(errors.detach(), slopes, references)
