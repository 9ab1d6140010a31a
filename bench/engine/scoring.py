"""Errors of cells: noise an image's latent, predict, and reduce the difference, in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bench.contracts.levels import Levels
from bench.contracts.strategy import Bools, Floats32, Ints
from bench.engine.batching import Batch
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.transfer import Pool, to_device
from bench.engine.trees import Tree, count, rows
from bench.inputs.draws import DrawPlan, generate_noise
from bench.inputs.estimand import Loss, cell_loss, space_factor
from bench.machine.libraries import Tensor, torch

CACHED_NOISES = 256  # (image, draw) pairs; the prompts of one are often in two batches
LATENT = 2**64 - 1  # draw number of the noise of a sampled latent; no plan has this draw


class SharedNoise:
    """Noise that is the same for all images, one tensor per draw: `bank`, float32 [N, C, H, W]."""

    def __init__(self, bank: Floats32, device: "torch.device") -> None:
        self.bank = torch.from_numpy(bank).to(device)

    def of(self, images: Sequence[str], cells: Ints, draw: Tensor) -> Tensor:
        """Return the noise of a batch's cells, float32 [B, C, H, W] on the device.

        `cells`, int64 [2, B], are draws and places in `images`; `draw` are the draws on the device.
        """
        return self.bank[draw]


class OwnNoise:
    """Noise of its own for each image and draw, from the seed, the draw and the sample id alone."""

    def __init__(
        self, plan: DrawPlan, seed: int, shape: tuple[int, ...], device: "torch.device"
    ) -> None:
        self.device = device
        self._made = lru_cache(CACHED_NOISES)(
            lambda image, draw: plan.make_draw_noise(seed, draw, shape, image)
        )

    def of(self, images: Sequence[str], cells: Ints, draw: Tensor) -> Tensor:
        """Return the noise as `SharedNoise.of` does; each (image, draw) is made once per batch."""
        distinct, place = np.unique(cells, axis=1, return_inverse=True)
        made = [self._made(images[image], int(k)) for k, image in distinct.T]
        bank = to_device(np.stack(made), self.device)
        return bank[to_device(place.reshape(-1), self.device)]


Noise = SharedNoise | OwnNoise


def sampled(posterior: Tensor, seed: int, image: str) -> Tensor:
    """Return a latent drawn from (mean, deviation), [2, C, H, W], by seed and image alone."""
    mean, deviation = posterior
    eps = torch.from_numpy(generate_noise(seed, LATENT, tuple(mean.shape), image)).to(mean.device)
    return torch.addcmul(mean, deviation, eps)


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of each draw, float32 [N].

    The noisy latent is x_t = alpha · x_0 + sigma · eps, a perfect prediction p · x_0 + q · eps.
    `factor` converts a difference of predictions to the space in which the error is measured.
    `time` is passed to the model, int64 if its levels are integers.
    """

    alpha: Tensor
    sigma: Tensor
    p: Tensor
    q: Tensor
    factor: Tensor
    time: Tensor


def coefficients(levels: Levels, rows: Ints, space: str, device: "torch.device") -> Coefficients:
    """Return the coefficients of draws on these levels, computed in float64, kept in float32."""
    columns = (levels.alpha, levels.sigma, levels.p, levels.q, space_factor(levels, space))
    alpha, sigma, p, q, factor = (
        torch.from_numpy(column[rows].astype(np.float32)).to(device) for column in columns
    )
    return Coefficients(alpha, sigma, p, q, factor, times(levels, rows).to(device))


def times(levels: Levels, rows: Ints) -> Tensor:
    """Return the time that the model is given on these levels: int64, or float32."""
    time = torch.from_numpy(levels.time[rows])
    return time.float() if time.is_floating_point() else time


def mixed(x_0: Tensor, eps: Tensor, of_x_0: Tensor, of_eps: Tensor) -> Tensor:
    """Return of_x_0 · x_0 + of_eps · eps, float32 [B, C, H, W]; the factors are [B].

    With (alpha, sigma) the result is x_t, with (p, q) the prediction of a perfect model.
    """
    return _wide(of_x_0) * x_0 + _wide(of_eps) * eps


def cell_errors(answer: Tensor, wanted: Tensor, factor: Tensor, loss: Loss) -> Tensor:
    """Return each cell's error, float32 [B]: the loss of the difference times `factor`, [B].

    `answer` is [B, C, H, W] in the model's dtype, `wanted` is float32.
    """
    return cell_loss((answer.float() - wanted) * _wide(factor), loss)


def guided(null: Tensor, answer: Tensor, weight: float) -> Tensor:
    """Return null + weight · (answer − null), float32: classifier-free guidance (Ho & Salimans)."""
    return null.float() + weight * (answer.float() - null.float())


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


@dataclass(frozen=True)
class Scoring:
    """Definition of the error of a cell."""

    draws: Coefficients
    noise: Noise
    loss: Loss  # reduces a difference to an error
    guidance: float | None = None  # the weight of classifier-free guidance; None: there is none


@dataclass(frozen=True)
class Cells:
    """The cells of a batch on the device, before their latents are noised."""

    prompt: Tensor  # int64 [B]
    draw: Tensor  # int64 [B]
    latents: Tensor  # float32 [B, C, H, W]
    eps: Tensor  # float32 [B, C, H, W], the noise
    one_level: bool  # whether all draws have one level, for a model that wants that


class Evaluator:
    """Computes the errors of batches of cells.

    With guidance, the last row of the conditioning is the null. Batches must then be evaluated in
    order: a cell with the null precedes those of its draw that need it, in the same batch or an
    earlier one, and its prediction is kept between calls.

    `prompts` holds every row of the conditioning; `pool`, with respect to which gradients are
    taken, lacks the null of guidance.
    """

    def __init__(self, backbone: CheckedDenoiser, conditioning: Tree, scoring: Scoring) -> None:
        self.backbone, self.scoring = backbone, scoring
        self.pool = self.prompts = Pool(conditioning, backbone.device, backbone.on_host)
        self.null = count(conditioning) - 1
        if scoring.guidance is not None:
            self.null_row = self.pool.part(slice(self.null, None))
            without = rows(self.pool.tree, slice(self.null))
            self.pool = Pool(without, backbone.device, backbone.on_host)
        self._last: dict[int, Tensor] = {}  # the last null predicted in a group, [1, C, H, W]

    def errors(self, batch: Batch) -> Tensor:
        """Return the errors of the batch's cells, float32 [B]."""
        cells = self.cells(batch)
        conditioning = self.prompts.take(batch.cells[0], cells.prompt)
        return self.errors_at(cells, conditioning, batch.cells[0] == self.null, batch.group)

    def cells(self, batch: Batch) -> Cells:
        """Return the cells of a batch, with their noise."""
        prompt, draw, image = to_device(batch.cells, self.backbone.device)
        eps = self.scoring.noise.of(batch.images, batch.cells[1:], draw)
        one_level = self.backbone.one_level and np.ptp(batch.cells[1]) == 0
        return Cells(prompt, draw, batch.contents[image], eps, bool(one_level))

    def errors_at(
        self, cells: Cells, conditioning: Tree, nulls: Bools | None = None, group: int = 0
    ) -> Tensor:
        """Return the errors of cells with this conditioning instead of their prompts', float32 [B].

        `nulls`, bool [B], marks the cells of the null: each serves the cells of its `group` that
        follow it. If `nulls` is None, guidance predicts a null of its own for every cell.
        """
        draws, weight, last = self.scoring.draws, self.scoring.guidance, self._last.get(group)
        draw, latents, eps = cells.draw, cells.latents, cells.eps
        x_t = mixed(latents, eps, draws.alpha[draw], draws.sigma[draw])
        time = draws.time[draw[:1]].expand(len(draw)) if cells.one_level else draws.time[draw]
        answer = self.backbone.denoise(x_t, time, conditioning)
        if weight is not None:
            if nulls is None:
                first = torch.zeros(len(draw), dtype=torch.int64)
                null_rows = rows(self.null_row, to_device(first, draw.device), first)
                with torch.no_grad():
                    null = self.backbone.denoise(x_t, time, null_rows)
            else:
                before = [] if last is None else [last]
                own = answer[to_device(np.flatnonzero(nulls), answer.device)]
                predicted = torch.cat([*before, own])  # under the null, in the order of the cells
                latest: Ints = np.cumsum(nulls) + (len(before) - 1)
                null = predicted[to_device(latest, answer.device)]
                last = predicted[-1:].clone()
            answer = guided(null, answer, weight)
        wanted = mixed(latents, eps, draws.p[draw], draws.q[draw])
        errors = cell_errors(answer, wanted, draws.factor[draw], self.scoring.loss)
        if last is not None:  # only here: if memory ran out above, these cells are evaluated again
            self._last[group] = last
        return errors
