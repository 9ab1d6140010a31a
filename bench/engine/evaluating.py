"""The errors of a batch of cells: noise, prediction, difference."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.engine.denoiser import CheckedDenoiser
from bench.engine.noising import Noise
from bench.engine.pool import Pool
from bench.engine.queue import Batch
from bench.engine.scoring import Coefficients, cell_errors, guided, mixed
from bench.engine.transfer import to_device
from bench.engine.trees import Tree, mapped, rows
from bench.inputs.estimand import Loss


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
