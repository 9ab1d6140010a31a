"""The engine for likelihoods: cells of many images in full batches, each an error by the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from bench.contracts.backbone import Likelihood
from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Evaluate, Ints, Problem, Strategy
from bench.discovery.backbones import read_reduction
from bench.discovery.guard import guard
from bench.discovery.targets import with_defaults
from bench.engine.batching import Batch, Block, Flight, Queue
from bench.engine.classifying import checked_floats
from bench.engine.images import CheckedViews, open_images
from bench.engine.items import Joint, Question, Questions
from bench.inputs.draws import MOST_DRAWS
from bench.inputs.templates import Columns

OPENED_IMAGES = 4  # images opened at a time


class CheckedLikelihood:
    """A plugin's likelihood, called `who` in messages; its reduction and errors are checked.

    It is `blind` where the text alone is scored, by the model's `prior`.
    """

    def __init__(self, backbone: object, who: str) -> None:
        self.backbone, self.who = backbone, who
        self._model: Likelihood = with_defaults(backbone, Likelihood)
        self.reduction = read_reduction(backbone, who)
        self.blind = False

    def evaluate(
        self, images: Sequence[Image], texts: Sequence[str], draws: Ints
    ) -> NDArray[np.float32]:
        """Return errors, float32 [B] (PluginError); torch.OutOfMemoryError passes."""
        method = "prior()" if self.blind else "evaluate()"
        with guard(self.who, method, (torch.OutOfMemoryError,)):
            if self.blind:
                returned = self._model.prior(texts, draws)
            else:
                returned = self._model.evaluate(images, texts, draws)
            return checked_floats(self.who, method, returned, (len(texts),), "cell")


class LikelihoodEngine:
    """Scores images with a likelihood."""

    device: str | None = None
    levels: Levels | None = None

    def __init__(
        self,
        backbone: CheckedLikelihood,
        texts: Sequence[str],  # prompts, or the pool of the items' texts
        problem: Problem,  # question that every image asks, about columns
        columns: Columns,  # prompts behind each column
        batch_size: int,  # cells at a time; halved for good when memory runs out
        views: CheckedViews | None = None,  # views of each image; None: the image alone
        view_of_draw: Ints | None = None,  # int64 [N], view that each draw sees
    ) -> None:
        self.backbone, self.texts = backbone, tuple(texts)
        self.problem, self.questions = problem, Questions(Question(problem, columns))
        self.batch_size, self.views = batch_size, views
        draws = np.arange(len(problem.timesteps))
        self.view_of_draw = np.zeros_like(draws) if view_of_draw is None else view_of_draw
        self.numbers = draw_numbers(problem.seed, len(draws))

    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each sample as it is decided; one that fails does not stop the others."""
        arriving = self._opened(samples)
        queue = Queue(self.view_of_draw, lambda pictures: list(chain.from_iterable(pictures)))
        while True:
            while queue.cells < self.batch_size and (arrival := next(arriving, None)) is not None:
                sample, opened = arrival
                if isinstance(opened, str):
                    yield Decided(sample, error=opened)
                    continue
                joint = Joint(sample, strategy, self.questions.of(sample), self.problem)
                for interview, pictures in zip(joint.interviews, opened, strict=True):
                    flight = Flight(interview, joint, pictures)
                    if self._ask(flight, queue) and (whole := joint.ended()):
                        yield whole
            if not queue.cells:
                return
            batch = queue.cut(self.batch_size)
            for flight in batch.deliver(self._evaluate(batch)):
                request, columns = flight.request, flight.joint.question.columns
                values = columns.errors(flight.errors, len(request.prompts))
                flight.interview.tell(request, values)
                if self._ask(flight, queue) and (whole := flight.joint.ended()):
                    yield whole

    def _opened(
        self, samples: Iterable[Sample]
    ) -> Iterator[tuple[Sample, list[list[Image]] | str]]:
        """Yield samples with the views of each image, or why there are none."""
        for group in open_images(samples, OPENED_IMAGES):
            for sample, opened in group:
                if isinstance(opened, str):
                    yield sample, opened
                elif self.views is None:
                    yield sample, [[image] for image in opened]
                else:
                    yield sample, self.views.of_sample(sample, opened, self.problem.seed)

    def _ask(self, flight: Flight, queue: Queue) -> bool:
        """Queue the next request; return True when the image is decided, or has failed."""
        request = flight.interview.ask()
        if request is None:
            return True
        assert isinstance(request, Evaluate), "there are no gradients to linearise with"
        texts, draws = flight.joint.question.cells(request)
        flight.expect(request, len(draws))
        queue.append(Block(flight, texts, draws))
        return False

    def _evaluate(self, batch: Batch) -> NDArray[np.float32]:
        """Return the batch's errors, float32 [B]; out of memory, in halves."""
        texts, draws, images = batch.cells
        try:
            return self.backbone.evaluate(
                [batch.contents[image] for image in images],
                [self.texts[text] for text in texts],
                self.numbers[draws],
            )
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        self.batch_size = max(1, self.batch_size // 2)
        halves = np.array_split(np.arange(len(batch)), 2)
        return np.concatenate([self._evaluate(batch.part(half)) for half in halves])


def draw_numbers(seed: int, n_draws: int) -> Ints:
    """Return int64 [N], the number that each draw of a seed has: seed · 100,000 + k."""
    return np.arange(n_draws, dtype=np.int64) + np.int64(seed * MOST_DRAWS)
