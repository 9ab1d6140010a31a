"""Base class of the engines for denoisers and likelihoods, which evaluate cells in full batches.

Strategies request small blocks of cells. The blocks of all images in progress wait in queues, and
batches are cut from the front, regardless of image, draw and prompt. A new image starts only while
no queue fills a batch, so memory does not grow with the dataset.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Evaluate, Floats32, Ints, Linearise, Problem
from bench.engine.asking import CheckedStrategy
from bench.engine.batching import Batch, Block, Flight, Queue, ShrinkingBatches
from bench.engine.items import Joint, Question, Questions
from bench.engine.transfer import fetch
from bench.inputs.prompts import Columns


class CellEngine(ShrinkingBatches, ABC):
    """Scores images by the errors of their cells.

    Subclasses load images (`arriving`) and evaluate batches (the `work` of their `queues`).
    """

    device: str | None = None
    levels: Levels | None = None
    depth = 1  # number of batches launched before the errors of the first are read

    def __init__(
        self,
        problem: Problem,  # question that every image asks, about columns
        columns: Columns,  # prompts behind each column
        batch_size: int,  # cells per batch; halved for good when memory runs out
        view_of_draw: Ints | None = None,  # int64 [N], view that each draw sees; None: one view
    ) -> None:
        super().__init__(batch_size)
        self.problem, self.questions = problem, Questions(Question(problem, columns))
        n_draws = len(problem.timesteps)
        self.view_of_draw = np.zeros(n_draws, np.int64) if view_of_draw is None else view_of_draw

    @abstractmethod
    def arriving(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Sequence[Any] | str]]:
        """Yield samples with the views of each image, or with why one cannot be read."""

    @abstractmethod
    def queues(self) -> list[Queue]:
        """Return empty queues, that of evaluations last; the first that is full is cut first."""

    def score(self, samples: Iterable[Sample], strategy: CheckedStrategy) -> Iterator[Decided]:
        """Yield each image as it is decided; an image that fails does not stop the others."""
        arriving, queues = self.arriving(samples), self.queues()
        # Batches, each with a function that waits for its errors.
        launched: deque[tuple[Batch, Callable[[], Floats32]]] = deque()
        while True:
            while (
                not any(queue.full for queue in queues)
                and (arrival := next(arriving, None)) is not None
            ):
                sample, images = arrival
                if isinstance(images, str):
                    yield Decided(sample, error=images)
                    continue
                joint = Joint(sample, strategy, self.questions.of(sample), self.problem)
                for interview, views in zip(joint.interviews, images, strict=True):
                    yield from self._ask(Flight(interview, joint, views), queues)
            ready = [queue for queue in queues if queue.full and len(launched) < self.depth]
            if not launched:
                ready += [queue for queue in queues if queue.cells]
            if ready:
                batch = ready[0].cut()
                launched.append((batch, fetch(ready[0].work(batch))))
                continue
            if not launched:
                return
            batch, errors = launched.popleft()
            for flight in batch.deliver(errors()):
                self.tell(flight)
                yield from self._ask(flight, queues)

    def _ask(self, flight: Flight, queues: Sequence[Queue]) -> Iterator[Decided]:
        """Queue the next request, or yield the sample where this decides or fails it."""
        request = flight.interview.ask()
        if request is not None:
            queue = queues[0 if isinstance(request, Linearise) else -1]
            for block in self.blocks(flight, request):
                queue.append(block)
        elif whole := flight.joint.finish_image():
            yield whole

    def blocks(self, flight: Flight, request: Evaluate | Linearise) -> Iterator[Block]:
        """Make room for the errors of a request, and yield its cells."""
        assert isinstance(request, Evaluate), "there are no gradients to linearise with"
        prompts, draws = flight.joint.question.cells(request)
        flight.expect(request, len(draws))
        yield Block(flight, prompts, draws)

    def tell(self, flight: Flight) -> None:
        """Reply to a flight's request with its errors."""
        request, columns = flight.request, flight.joint.question.columns
        flight.interview.tell(request, columns.errors(flight.errors, len(request.prompts)))
