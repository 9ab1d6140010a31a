"""The scoring engine for denoisers: one queue of cells from many images, full batches.

A strategy asks for ragged little blocks. Blocks of all images under way wait in one queue, and
batches are cut from its front whatever image, draw or prompt a cell belongs to. A new image
starts only while the queue does not fill a batch, so few images are under way at a time and
memory does not grow with the dataset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from bench.backbone import Denoiser
from bench.data import Sample
from bench.engine.decided import Decided
from bench.engine.encoding import open_images
from bench.engine.scoring import Coefficients, add_noise, cell_errors, target
from bench.strategy import Evaluate, Problem, Reply, Session, Strategy

ENCODE_BATCH = 8  # images encoded by the VAE at a time


@dataclass
class Flight:
    """One image under way."""

    decided: Decided
    session: Session
    latent: torch.Tensor
    request: Evaluate | None = None
    errors: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    missing: int = 0


@dataclass
class Block:
    """Cells of one request that still wait: its prompts and draws, cell by cell."""

    flight: Flight
    prompts: NDArray[np.int64]
    draws: NDArray[np.int64]
    start: int = 0


@dataclass
class Batch:
    """Cells to evaluate together, and where their errors belong."""

    prompts: NDArray[np.int64]
    draws: NDArray[np.int64]
    latents: torch.Tensor
    parts: list[tuple[Flight, int, int]]  # flight, offset in its errors, cells


class DenoisingEngine:
    """Scores images with a denoiser.

    Batches are always of one size, the last one filled up with a cell of its own: the low bits of
    a result depend on the batch's shape, and a run that goes on after a kill should equal one that
    was never stopped as nearly as threads allow.

    Args:
        backbone: the denoiser.
        conditioning: [P, L, D], the embedded prompts.
        problem: the question every image asks.
        draws: the draws' coefficients.
        noise: float32 [N, C, H, W].
        loss: `l2`, `l1` or `huber`.
        batch_size: cells a batch; halved for good when memory runs out.
    """

    def __init__(
        self,
        backbone: Denoiser,
        conditioning: torch.Tensor,
        problem: Problem,
        draws: Coefficients,
        noise: NDArray[np.float32],
        loss: str,
        batch_size: int,
    ) -> None:
        self.backbone = backbone
        self.device: str | None = backbone.device.type
        self.conditioning = conditioning
        self.problem = problem
        self.draws = draws
        self.noise = torch.from_numpy(noise).to(backbone.device)
        self.timesteps = torch.from_numpy(problem.timesteps).to(backbone.device)
        self.loss = loss
        self.batch_size = batch_size

    @torch.inference_mode()
    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided; an image that fails does not stop the others."""
        arriving = self._encoded(samples)
        queue: deque[Block] = deque()
        waiting = 0  # cells in the queue
        while True:
            while waiting < self.batch_size and (arrival := next(arriving, None)) is not None:
                sample, latent = arrival
                if isinstance(latent, str):
                    yield Decided(sample, error=latent)
                    continue
                flight = Flight(Decided(sample), strategy.start(self.problem), latent)
                finished = self._ask(flight, queue)
                waiting += flight.missing
                if finished:
                    yield flight.decided
            if not waiting:
                return
            batch = _cut(queue, self.batch_size)
            waiting -= len(batch.prompts)
            errors = self._evaluate(batch)
            for (flight, offset, count), part in zip(
                batch.parts,
                errors.split_with_sizes([count for *_, count in batch.parts]),
                strict=True,
            ):
                flight.errors[offset : offset + count] = part
                flight.missing -= count
                if flight.missing == 0:
                    finished = self._tell(flight) or self._ask(flight, queue)
                    waiting += flight.missing
                    if finished:
                        yield flight.decided

    def _encoded(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, torch.Tensor | str]]:
        """Yield samples with their latent, float32 [C, H, W], or why there is none."""
        for group in open_images(samples, ENCODE_BATCH):
            images = [image for _, image in group if not isinstance(image, str)]
            filled = images + images[-1:] * (ENCODE_BATCH - len(images))
            latents = iter(self.backbone.encode_images(filled) if images else ())
            for sample, image in group:
                yield sample, image if isinstance(image, str) else next(latents).float()

    def _ask(self, flight: Flight, queue: deque[Block]) -> bool:
        """Queue what the session wants next; return True when the image is decided."""
        request = flight.session.ask()
        if request is None:
            flight.decided.outcome = flight.session.outcome()
            return True
        # Draw by draw: the prompts of one draw share their noised latent.
        prompts = np.tile(request.prompts, len(request.draws))
        draws = np.repeat(request.draws, len(request.prompts))
        if len(prompts) == 0:
            raise ValueError("the strategy asked for an empty block of cells")
        flight.request = request
        flight.missing = len(prompts)
        flight.errors = torch.empty(len(prompts), device=self.backbone.device)
        queue.append(Block(flight, prompts, draws))
        return False

    def _tell(self, flight: Flight) -> bool:
        """Hand the errors to the session; return True when the image has failed."""
        request = flight.request
        assert request is not None
        shape = (len(request.draws), len(request.prompts))
        values = flight.errors.cpu().numpy().reshape(shape).T
        flight.decided.evaluations += values.size
        if not np.isfinite(values).all():
            prompt, draw = (int(i[0]) for i in np.nonzero(~np.isfinite(values)))
            flight.decided.error = (
                f"the model's error is {values[prompt, draw]} for prompt {request.prompts[prompt]}"
                f" on draw {request.draws[draw]}"
                f" (t = {self.problem.timesteps[request.draws[draw]]})"
            )
            return True
        flight.decided.cells.append((request, values))
        flight.session.tell(request, Reply(values, float(values.size)))
        return False

    def _evaluate(self, batch: Batch) -> torch.Tensor:
        """Return the batch's errors, float32 [B]; out of memory, do the same cells by halves."""
        if len(batch.prompts) > self.batch_size:
            halves = torch.arange(len(batch.prompts)).chunk(
                -(-len(batch.prompts) // self.batch_size)
            )
            return torch.cat([self._evaluate(_part(batch, half)) for half in halves])
        try:
            return self._forward(_filled(batch, self.batch_size))[: len(batch.prompts)]
        except torch.OutOfMemoryError:
            if self.batch_size == 1:
                raise
            self.batch_size = max(1, min(self.batch_size, len(batch.prompts)) // 2)
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()
        return self._evaluate(batch)

    def _forward(self, batch: Batch) -> torch.Tensor:
        device = self.backbone.device
        draw = torch.from_numpy(batch.draws).to(device)
        prompt = torch.from_numpy(batch.prompts).to(device)
        alpha, sigma, eps = self.draws.alpha[draw], self.draws.sigma[draw], self.noise[draw]
        x_t = add_noise(batch.latents, eps, alpha, sigma)
        prediction = self.backbone.denoise(x_t, self.timesteps[draw], self.conditioning[prompt])
        wanted = target(self.backbone.prediction_type, batch.latents, eps, alpha, sigma)
        return cell_errors(prediction, wanted, self.draws.factor[draw], self.loss)


def _cut(queue: deque[Block], size: int) -> Batch:
    """Take up to `size` cells from the front of the queue."""
    prompts, draws, parts = [], [], []
    while queue and size:
        block = queue[0]
        stop = min(block.start + size, len(block.prompts))
        prompts.append(block.prompts[block.start : stop])
        draws.append(block.draws[block.start : stop])
        parts.append((block.flight, block.start, stop - block.start))
        size -= stop - block.start
        block.start = stop
        if stop == len(block.prompts):
            queue.popleft()
    latents = torch.cat([f.latent.expand(count, *f.latent.shape) for f, _, count in parts])
    return Batch(np.concatenate(prompts), np.concatenate(draws), latents, parts)


def _filled(batch: Batch, size: int) -> Batch:
    """Repeat the last cell until the batch is full."""
    return _part(batch, torch.arange(size).clamp(max=len(batch.prompts) - 1))


def _part(batch: Batch, cells: torch.Tensor) -> Batch:
    chosen = cells.numpy()
    return Batch(batch.prompts[chosen], batch.draws[chosen], batch.latents[cells], [])
