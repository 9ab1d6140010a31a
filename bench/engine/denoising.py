"""The scoring engine for denoisers: cells of many images in full batches.

A strategy asks for small blocks of any shape. The blocks of all images under way wait in a queue,
one for evaluations and one for linearisations, and batches are cut from its front whatever image,
draw or prompt a cell belongs to. A new image starts only while no queue fills a batch, so few
images are under way at a time and memory does not grow with the dataset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bench.contracts.backbone import LINEARISATION_COST
from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Ints, Linearise, Problem, Strategy
from bench.engine import trees
from bench.engine.batching import Batch, Block, Flight, Queue, filled_size
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.items import Joint, Question, Questions
from bench.engine.latents import Latents
from bench.engine.linearising import Lineariser
from bench.engine.scoring import Evaluator, Scoring
from bench.engine.threads import Threads
from bench.engine.transfer import fetch, free_memory, to_device
from bench.engine.trees import Tree
from bench.inputs.templates import Columns

# A batch, and a function that waits for its errors.
Launched = tuple[Batch, Callable[[], NDArray[np.float32]]]


class DenoisingEngine:
    """Scores images with a denoiser.

    Batches are of one size. Only at the end of a run, where nothing else can be done meanwhile,
    a batch has a half, a quarter or an eighth of it, filled up by repeating its last cell. On a
    GPU the next batch is launched before the errors of the last one are read. Where errors need the
    null, it is the conditioning's last row, and a cell of it precedes the cells of each draw of a
    request: a batch is cut anywhere, and the evaluator keeps the last null for the next one.
    """

    def __init__(
        self,
        backbone: CheckedDenoiser,
        conditioning: Tree,  # embedded prompts, one row each, on the host
        problem: Problem,  # question that every image asks, about columns
        columns: Columns,  # prompts behind each column
        scoring: Scoring,  # definition of an error
        batch_size: int,  # cells per batch; halved for good when memory runs out
        latents: Latents | None = None,  # encodes images; None: to the mean of the posterior
        view_of_draw: Ints | None = None,  # int64 [N], view that each draw sees; None: one view
        subtracts_null: bool = False,
        linearisation_cost: float = LINEARISATION_COST,  # of one linearised draw, in evaluations
    ) -> None:
        self.backbone = backbone
        self.device: str | None = backbone.device.type
        self.levels: Levels | None = backbone.levels
        self.problem, self.questions = problem, Questions(Question(problem, columns))
        self.columns = columns
        self.evaluator = Evaluator(backbone, conditioning, scoring)
        self.latents = latents or Latents(backbone)
        n_draws = len(problem.timesteps)
        self.view_of_draw = np.zeros(n_draws, np.int64) if view_of_draw is None else view_of_draw
        self.views = int(self.view_of_draw.max(initial=0)) + 1
        self.subtracts_null = subtracts_null
        guided = scoring.guidance is not None
        self.prompts = trees.count(conditioning) - (subtracts_null or guided)
        self.with_nulls = subtracts_null or (guided and scoring.null_per == "draw")
        self.batch_size = batch_size
        self.out_of_memory: Callable[[int], None] = lambda size: None  # given the new batch size
        self.threads = Threads() if backbone.device.type == "cpu" else None
        self.linear = Lineariser(self.evaluator, batch_size, linearisation_cost)
        # Cost so far, in evaluations, of linearised draws, and of cells but filling ones.
        self.evaluated = 0.0
        # Number of batches launched before the errors of the first are read.
        self.depth = 2 if backbone.device.type == "cuda" else 1
        self.one_shape = False  # whether all batches are filled up, for a compiled network

    @torch.inference_mode()
    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided; an image that fails does not stop the others."""
        arriving = self.latents.of(samples)
        plain, linear = Queue(self.view_of_draw), Queue(self.view_of_draw)
        launched: deque[Launched] = deque()
        while True:
            while (
                plain.cells < self.batch_size
                and linear.cells < self.linear.batch_size
                and (arrival := next(arriving, None)) is not None
            ):
                sample, latents = arrival
                if isinstance(latents, str):
                    yield Decided(sample, error=latents)
                    continue
                joint = Joint(sample, strategy, self.questions.of(sample), self.problem)
                for interview, latent in zip(joint.interviews, latents, strict=True):
                    flight = Flight(interview, joint, latent)
                    if self._ask(flight, plain, linear) and (whole := joint.ended()):
                        yield whole
            if (another := self._launch(plain, linear, len(launched))) is not None:
                launched.append(another)
                continue
            if not launched:
                return
            batch, errors = launched.popleft()
            for flight in batch.deliver(errors()):
                self._tell(flight)
                if self._ask(flight, plain, linear) and (whole := flight.joint.ended()):
                    yield whole

    def _launch(self, plain: Queue, linear: Queue, under_way: int) -> Launched | None:
        """Launch a full batch, linearisations first; one that is not if nothing is under way."""
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
        if self.threads is not None:
            self.threads.adapt()
        return batch, fetch(work(batch))

    @torch.inference_mode()
    def rehearse(self, size: int) -> None:
        """Evaluate one batch of `size` made-up cells and wait for it; OutOfMemoryError passes."""
        cell = np.arange(size)
        draws = len(self.problem.timesteps)
        latents = torch.zeros(1, *self.backbone.latent_shape, device=self.backbone.device)
        rows = self.prompts + self.with_nulls
        cells = [(rows - 1 - cell) % rows, cell // rows % draws, np.zeros_like(cell)]
        fetch(self.evaluator.errors(Batch(np.stack(cells), latents, [""])))()

    def _ask(self, flight: Flight, plain: Queue, linear: Queue) -> bool:
        """Queue the next request; return True when the image is decided, or has failed."""
        request = flight.interview.ask()
        if request is None:
            return True
        if isinstance(request, Linearise):
            flight.expect(request, len(request.draws), self.prompts)
            for block in self._linear_blocks(flight, request):
                linear.append(block)
        else:
            prompts, draws = flight.joint.question.cells(request)
            if self.with_nulls:
                by_draw = prompts.reshape(len(request.draws), -1)
                prompts = np.insert(by_draw, 0, self.prompts, axis=1).ravel()
                draws = np.repeat(request.draws, by_draw.shape[1] + 1)
            flight.expect(request, len(draws))
            plain.append(Block(flight, prompts, draws))
        return False

    def _linear_blocks(self, flight: Flight, request: Linearise) -> Iterator[Block]:
        """Yield one block per mixture of prompts that a mixture of columns means."""
        shown = self.columns.shown[request.draws]
        _, group = np.unique(shown, axis=0, return_inverse=True)
        flight.order = np.argsort(group.reshape(-1), kind="stable")
        start = 0
        for count in np.bincount(group.reshape(-1)):
            draws = request.draws[flight.order[start : start + count]]
            mixture = self.columns.mixture(request.mixture, int(draws[0]))
            yield Block(flight, np.full(count, -1), draws, start, mixture)
            start += int(count)

    def _tell(self, flight: Flight) -> None:
        request = flight.request
        if isinstance(request, Linearise):
            values = np.empty((len(self.columns.members), len(request.draws)), np.float32)
            for row, position in zip(flight.errors, flight.order, strict=True):
                values[:, position] = self.columns.first_order(row, int(request.draws[position]))
            flight.interview.tell(request, values, self.linear.cost)
        else:
            by_draw = flight.errors.reshape(len(request.draws), -1)
            cells = by_draw[:, 1:] if self.with_nulls else by_draw
            values = flight.joint.question.columns.errors(cells, len(request.prompts))
            if self.subtracts_null:
                values = values - by_draw[:, 0]
            flight.interview.tell(request, values)

    def _evaluate(self, batch: Batch) -> torch.Tensor:
        """Return the batch's errors, float32 [B]; out of memory, in halves."""
        if len(batch) > self.batch_size:
            parts = np.array_split(np.arange(len(batch)), -(-len(batch) // self.batch_size))
            return torch.cat([self._evaluate(batch.part(part)) for part in parts])
        size = self.batch_size if self.one_shape else filled_size(len(batch), self.batch_size)
        try:
            errors = self.evaluator.errors(batch.filled(size))[: len(batch)]
            self.evaluated += len(batch) * self.evaluator.passes
            return errors
        except torch.OutOfMemoryError:
            if self.batch_size == 1:
                raise
        self.batch_size = max(1, min(self.batch_size, len(batch)) // 2)
        free_memory(self.backbone.device)
        self.out_of_memory(self.batch_size)
        return self._evaluate(batch)

    def _linearise(self, batch: Batch) -> torch.Tensor:
        """Return first-order errors, float32 [B, P]."""
        mixtures = [block.mixture for block, *_ in batch.parts if block.mixture is not None]
        _, draw, image = to_device(batch.cells, self.backbone.device)
        eps = self.evaluator.scoring.noise.of(batch.images, batch.cells[1:], draw)
        errors = self.linear.first_order(
            draw, batch.contents[image], eps, mixtures, image // self.views
        )
        self.evaluated += len(batch) * self.linear.cost
        return errors
