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
from bench.engine.linearising import Lineariser
from bench.engine.scoring import Coefficients, add_noise, cell_errors, target
from bench.strategy import Evaluate, Linearise, Problem, Session, Strategy

ENCODE_BATCH = 8  # images encoded by the VAE at a time


@dataclass
class Flight:
    """One image under way."""

    decided: Decided
    session: Session
    latent: torch.Tensor
    request: Evaluate | Linearise | None = None
    errors: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    missing: int = 0


@dataclass
class Block:
    """Cells of one request that still wait: its prompts and draws, cell by cell.

    A linearised draw is a cell without a prompt (-1); its "error" is a row, one for each prompt.
    """

    flight: Flight
    prompts: NDArray[np.int64]
    draws: NDArray[np.int64]
    start: int = 0


class Queue:
    """Blocks of one kind that wait, and how many cells that are."""

    def __init__(self) -> None:
        self.blocks: deque[Block] = deque()
        self.cells = 0

    def append(self, block: Block) -> None:
        """Put a block at the end."""
        self.blocks.append(block)
        self.cells += len(block.draws)

    def cut(self, size: int) -> Batch:
        """Take up to `size` cells from the front."""
        prompts, draws, parts = [], [], []
        while self.blocks and size:
            block = self.blocks[0]
            stop = min(block.start + size, len(block.draws))
            prompts.append(block.prompts[block.start : stop])
            draws.append(block.draws[block.start : stop])
            parts.append((block.flight, block.start, stop - block.start))
            size -= stop - block.start
            self.cells -= stop - block.start
            block.start = stop
            if stop == len(block.draws):
                self.blocks.popleft()
        latents = torch.cat([f.latent.expand(count, *f.latent.shape) for f, _, count in parts])
        return Batch(np.concatenate(prompts), np.concatenate(draws), latents, parts)


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
        self.linear = Lineariser(backbone, self._errors_at, conditioning, batch_size)

    @torch.inference_mode()
    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided; an image that fails does not stop the others."""
        arriving = self._encoded(samples)
        plain, linear = Queue(), Queue()
        while True:
            while (
                plain.cells < self.batch_size
                and linear.cells < self.linear.batch_size
                and (arrival := next(arriving, None)) is not None
            ):
                sample, latent = arrival
                if isinstance(latent, str):
                    yield Decided(sample, error=latent)
                    continue
                flight = Flight(Decided(sample), strategy.start(self.problem), latent)
                if self._ask(flight, plain, linear):
                    yield flight.decided
            # A linearisation brings evaluations to ask for, so it goes first where both could.
            if linear.cells and (
                linear.cells >= self.linear.batch_size or plain.cells < self.batch_size
            ):
                batch = linear.cut(self.linear.batch_size)
                errors = self._linearise(batch)
            elif plain.cells:
                batch = plain.cut(self.batch_size)
                errors = self._evaluate(batch)
            else:
                return
            for (flight, offset, count), part in zip(
                batch.parts,
                errors.split_with_sizes([count for *_, count in batch.parts]),
                strict=True,
            ):
                flight.errors[offset : offset + count] = part
                flight.missing -= count
                if flight.missing == 0 and (self._tell(flight) or self._ask(flight, plain, linear)):
                    yield flight.decided

    def _encoded(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, torch.Tensor | str]]:
        """Yield samples with their latent, float32 [C, H, W], or why there is none."""
        for group in open_images(samples, ENCODE_BATCH):
            images = [image for _, image in group if not isinstance(image, str)]
            filled = images + images[-1:] * (ENCODE_BATCH - len(images))
            latents = iter(self.backbone.encode_images(filled) if images else ())
            for sample, image in group:
                yield sample, image if isinstance(image, str) else next(latents).float()

    def _ask(self, flight: Flight, plain: Queue, linear: Queue) -> bool:
        """Queue what the session wants next; return True when the image is decided."""
        request = flight.session.ask()
        if request is None:
            flight.decided.outcome = flight.session.outcome()
            return True
        shape: tuple[int, ...]
        if isinstance(request, Linearise):
            if not self.problem.can_linearise:
                raise ValueError("the strategy asked for a linearisation, which there is not")
            queue, draws = linear, request.draws
            prompts = np.full(len(draws), -1)
            shape = len(draws), len(self.conditioning)
        else:
            # Draw by draw: the prompts of one draw share their noised latent.
            queue, draws = plain, np.repeat(request.draws, len(request.prompts))
            prompts = np.tile(request.prompts, len(request.draws))
            shape = (len(draws),)
        if len(draws) == 0:
            raise ValueError("the strategy asked for an empty block of cells")
        flight.request = request
        flight.missing = len(draws)
        flight.errors = torch.empty(shape, device=self.backbone.device)
        queue.append(Block(flight, prompts, draws))
        return False

    def _tell(self, flight: Flight) -> bool:
        """Hand the errors to the session; return True when the image has failed."""
        request = flight.request
        assert request is not None
        values = flight.errors.cpu().numpy().reshape(len(request.draws), -1).T
        return not flight.decided.answer(flight.session, request, values, self.linear.cost)

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
        prompt = torch.from_numpy(batch.prompts).to(self.backbone.device)
        return self._errors_at(batch.draws, batch.latents, self.conditioning[prompt])

    def _linearise(self, batch: Batch) -> torch.Tensor:
        """Return first-order errors, float32 [B, P]."""
        references = [
            self.linear.mix(flight.request.mixture).expand(count, -1, -1)
            for flight, _, count in batch.parts
            if isinstance(flight.request, Linearise)
        ]
        return self.linear.first_order(batch.draws, batch.latents, torch.cat(references))

    def _errors_at(
        self, draws: NDArray[np.int64], latents: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Return the errors, float32 [B], of cells whose conditioning is given."""
        draw = torch.from_numpy(draws).to(self.backbone.device)
        alpha, sigma, eps = self.draws.alpha[draw], self.draws.sigma[draw], self.noise[draw]
        x_t = add_noise(latents, eps, alpha, sigma)
        prediction = self.backbone.denoise(x_t, self.timesteps[draw], conditioning)
        wanted = target(self.backbone.prediction_type, latents, eps, alpha, sigma)
        return cell_errors(prediction, wanted, self.draws.factor[draw], self.loss)


def _filled(batch: Batch, size: int) -> Batch:
    """Repeat the last cell until the batch is full."""
    return _part(batch, torch.arange(size).clamp(max=len(batch.prompts) - 1))


def _part(batch: Batch, cells: torch.Tensor) -> Batch:
    chosen = cells.numpy()
    return Batch(batch.prompts[chosen], batch.draws[chosen], batch.latents[cells], [])
