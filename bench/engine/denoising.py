"""The scoring engine for denoisers: cells of many images in one queue a kind, full batches.

A strategy asks for ragged little blocks. Blocks of all images under way wait in a queue, one for
evaluations and one for linearisations, and batches are cut from its front whatever image, draw or
prompt a cell belongs to. A new image starts only while no queue fills a batch, so few images are
under way at a time and memory does not grow with the dataset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from bench.contracts.backbone import LINEARISATION_COST
from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided, Interview
from bench.contracts.strategy import Linearise, Problem, Strategy
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.encoding import Opened, open_images
from bench.engine.linearising import Lineariser
from bench.engine.queue import Batch, Block, Flight, Queue, filled_size
from bench.engine.scoring import Coefficients, add_noise, cell_errors, target
from bench.engine.transfer import ahead, fetch, free_memory, to_device

ENCODE_BATCH = 8  # images encoded by the VAE at a time
THREADLESS = ("cpu",)  # where a thread that opens images only takes time from the model
# A batch, and its errors when they are waited for.
Launched = tuple[Batch, Callable[[], NDArray[np.float32]]]


class DenoisingEngine:
    """Scores images with a denoiser.

    Batches are of one size. Only where nothing else can be done meanwhile, at the end of a run, is
    one smaller: a half, a quarter or an eighth of it, filled up with a cell of its own. On a GPU
    the next batch is launched before the errors of the last one are read.

    Args:
        backbone: the denoiser.
        conditioning: [P, L, D], the embedded prompts.
        problem: the question every image asks.
        draws: the draws' coefficients.
        noise: float32 [N, C, H, W].
        loss: `l2`, `l1` or `huber`.
        batch_size: cells per batch; halved for good when memory runs out.
        out_of_memory: called with the new size when that happens.
        linearisation_cost: of one draw, in evaluations.

    Attributes:
        prompts: the conditioning, or what the backbone's `fold_prompts` made of it.
        linear: makes the linearisations, in batches of its own size.
        evaluated: what was done so far, in evaluations: cells, without those that only fill a
            batch, and linearised draws at what they cost.
        depth: batches launched before the errors of the first are read.
        one_shape: whether a batch that is not full is filled to its full size, for networks that
            are compiled for one shape.
    """

    def __init__(
        self,
        backbone: CheckedDenoiser,
        conditioning: torch.Tensor,
        problem: Problem,
        draws: Coefficients,
        noise: NDArray[np.float32],
        loss: str,
        batch_size: int,
        out_of_memory: Callable[[int], None] = lambda size: None,
        linearisation_cost: float = LINEARISATION_COST,
    ) -> None:
        self.backbone = backbone
        self.device: str | None = backbone.device.type
        self.conditioning = conditioning
        self.prompts = backbone.fold_prompts(conditioning)
        self.problem = problem
        self.draws = draws
        self.noise = torch.from_numpy(noise).to(backbone.device)
        self.timesteps = torch.from_numpy(problem.timesteps.copy()).to(backbone.device)
        self.loss = loss
        self.batch_size = batch_size
        self.out_of_memory = out_of_memory
        self.linear = Lineariser(
            backbone, self._errors_at, conditioning, batch_size, linearisation_cost
        )
        self.evaluated = 0.0
        self.depth = 2 if backbone.device.type == "cuda" else 1
        self.one_shape = False

    @torch.inference_mode()
    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided; an image that fails does not stop the others."""
        arriving = self._encoded(samples)
        plain, linear = Queue(), Queue()
        launched: deque[Launched] = deque()
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
                flight = Flight(Interview(sample, strategy, self.problem), latent)
                if self._ask(flight, plain, linear):
                    yield flight.interview.decided
            if (another := self._launch(plain, linear, len(launched))) is not None:
                launched.append(another)
                continue
            if not launched:
                return
            batch, errors = launched.popleft()
            start, values = 0, errors()
            for flight, offset, count in batch.parts:
                flight.errors[offset : offset + count] = values[start : start + count]
                start += count
                flight.missing -= count
                if flight.missing == 0:
                    self._tell(flight)
                    if self._ask(flight, plain, linear):
                        yield flight.interview.decided

    def _launch(self, plain: Queue, linear: Queue, under_way: int) -> Launched | None:
        """Begin a full batch; where nothing is under way, one that is not full.

        A linearisation brings evaluations to ask for, so it goes first where both could.
        """
        kinds = (
            (linear, self.linear.batch_size, self._linearise),
            (plain, self.batch_size, self._evaluate),
        )
        ready = [kind for kind in kinds if kind[0].cells >= kind[1] and under_way < self.depth]
        ready += [kind for kind in kinds if kind[0].cells and not under_way]
        if not ready:
            return None
        queue, size, work = ready[0]
        batch = queue.cut(size)
        return batch, fetch(work(batch))

    @torch.inference_mode()
    def rehearse(self, size: int) -> None:
        """Evaluate one batch of `size` made-up cells and wait for it, to time or to warm up.

        Raises:
            torch.OutOfMemoryError: that many do not fit.
        """
        cell = np.arange(size)
        prompts, draws = len(self.prompts), len(self.timesteps)
        latents = torch.zeros(1, *self.noise.shape[1:], device=self.backbone.device)
        cells = np.stack([cell % prompts, cell // prompts % draws, np.zeros_like(cell)])
        fetch(self._forward(Batch(cells, latents, [])))()

    def _encoded(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, torch.Tensor | str]]:
        """Yield samples with their latent, float32 [C, H, W], or why there is none."""
        groups: Iterator[list[Opened]] = open_images(samples, ENCODE_BATCH)
        if self.backbone.device.type not in THREADLESS:
            groups = ahead(groups, depth=2)
        for group in groups:
            images = [image for _, image in group if not isinstance(image, str)]
            latents = iter(self._encode(images) if images else ())
            for sample, image in group:
                yield sample, image if isinstance(image, str) else next(latents).float()

    def _encode(self, images: list[Image]) -> torch.Tensor:
        """Return latents, [n, C, H, W]; out of memory, of half the images at a time."""
        filled = images + images[-1:] * ((1 << (len(images) - 1).bit_length()) - len(images))
        try:
            return self.backbone.encode_images(filled)[: len(images)]
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        free_memory(self.backbone.device)
        half = len(filled) // 2
        return torch.cat([self._encode(images[:half]), self._encode(images[half:])])

    def _ask(self, flight: Flight, plain: Queue, linear: Queue) -> bool:
        """Queue what is wanted next; return True when the image is decided, or has failed."""
        request = flight.interview.ask()
        if request is None:
            return True
        shape: tuple[int, ...]
        if isinstance(request, Linearise):
            queue, draws = linear, request.draws
            prompts = np.full(len(draws), -1)
            shape = len(draws), len(self.conditioning)
        else:
            # Draw by draw: the prompts of one draw share their noised latent.
            queue, draws = plain, np.repeat(request.draws, len(request.prompts))
            prompts = np.tile(request.prompts, len(request.draws))
            shape = (len(draws),)
        flight.request = request
        flight.missing = len(draws)
        flight.errors = np.empty(shape, np.float32)
        queue.append(Block(flight, prompts, draws))
        return False

    def _tell(self, flight: Flight) -> None:
        """Hand over the errors that were asked for."""
        request = flight.request
        assert request is not None
        values = flight.errors.reshape(len(request.draws), -1).T
        flight.interview.tell(request, values, self.linear.cost)

    def _evaluate(self, batch: Batch) -> torch.Tensor:
        """Return the batch's errors, float32 [B]; out of memory, do the same cells by halves."""
        if len(batch) > self.batch_size:
            parts = np.array_split(np.arange(len(batch)), -(-len(batch) // self.batch_size))
            return torch.cat([self._evaluate(batch.part(part)) for part in parts])
        size = self.batch_size if self.one_shape else filled_size(len(batch), self.batch_size)
        try:
            errors = self._forward(batch.filled(size))[: len(batch)]
            self.evaluated += len(batch)
            return errors
        except torch.OutOfMemoryError:
            if self.batch_size == 1:
                raise
        self._shrink(len(batch))
        return self._evaluate(batch)

    def _shrink(self, cells: int) -> None:
        """Halve the batch size for good, since memory ran out with so many cells."""
        self.batch_size = max(1, min(self.batch_size, cells) // 2)
        free_memory(self.backbone.device)
        self.out_of_memory(self.batch_size)

    def _forward(self, batch: Batch) -> torch.Tensor:
        prompt, draw, image = to_device(batch.cells, self.backbone.device)
        return self._errors_at(draw, batch.latents[image], self.prompts[prompt])

    def _linearise(self, batch: Batch) -> torch.Tensor:
        """Return first-order errors, float32 [B, P]."""
        requests = [flight.request for flight, *_ in batch.parts]
        centres = torch.stack(
            [self.linear.mix(r.mixture) for r in requests if isinstance(r, Linearise)]
        )
        _, draw, image = to_device(batch.cells, self.backbone.device)
        errors = self.linear.first_order(draw, batch.latents[image], centres[image])
        self.evaluated += len(batch) * self.linear.cost
        return errors

    def _errors_at(
        self, draw: torch.Tensor, latents: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        """Return the errors, float32 [B], of cells whose conditioning is given."""
        alpha, sigma, eps = self.draws.alpha[draw], self.draws.sigma[draw], self.noise[draw]
        x_t = add_noise(latents, eps, alpha, sigma)
        prediction = self.backbone.denoise(x_t, self.timesteps[draw], conditioning)
        wanted = target(self.backbone.prediction_type, latents, eps, alpha, sigma)
        return cell_errors(prediction, wanted, self.draws.factor[draw], self.loss)
