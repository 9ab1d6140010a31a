"""The engine for likelihoods: cells of many images in full batches, each an error by the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from bench.contracts.backbone import Likelihood
from bench.contracts.dataset import Sample
from bench.contracts.decision import REDUCTIONS, Decided, Interview
from bench.contracts.levels import Levels
from bench.contracts.strategy import Evaluate, Ints, Problem, Strategy
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import with_defaults
from bench.engine.classifying import checked_floats
from bench.engine.images import CheckedViews, open_images
from bench.engine.items import Joint, Question, Questions
from bench.errors import PluginError
from bench.inputs.draws import MOST_DRAWS
from bench.inputs.templates import Columns

OPENED_IMAGES = 4  # images opened at a time


class CheckedLikelihood:
    """A plugin's likelihood, called `who` in messages; its errors are checked.

    Attributes:
        reduction: how the errors of a text's draws make its score.
        blind: whether the text alone is scored, by the model's `prior`.

    Raises:
        PluginError: the reduction is not one of `REDUCTIONS`.
    """

    def __init__(self, backbone: object, who: str) -> None:
        self.backbone, self.who = backbone, who
        self._model: Likelihood = with_defaults(backbone, Likelihood)
        self.reduction = check_reduction(backbone, who)
        self.blind = False

    def evaluate(
        self, images: Sequence[Image], texts: Sequence[str], draws: Ints
    ) -> NDArray[np.float32]:
        """Return errors, float32 [B].

        Raises:
            PluginError: the plugin raised something, or returned something else.
            torch.OutOfMemoryError: the batch does not fit.
        """
        method = "prior()" if self.blind else "evaluate()"
        with guard(self.who, method, (torch.OutOfMemoryError,)):
            if self.blind:
                returned = self._model.prior(texts, draws)
            else:
                returned = self._model.evaluate(images, texts, draws)
            return checked_floats(self.who, method, returned, (len(texts),), "cell")


def check_reduction(backbone: Any, who: str) -> str:
    """Return the reduction of a likelihood or its class; raise `PluginError` where it has none."""
    with guard(who, "reading its reduction"):
        reduction: Any = getattr(backbone, "reduction", None)
    if reduction not in REDUCTIONS:
        raise PluginError(
            who, f"its reduction is {one_line(reduction)}; one of {', '.join(REDUCTIONS)} is wanted"
        )
    return str(reduction)


@dataclass
class _Flight:
    """One image under way.

    Attributes:
        pictures: one per view.
        texts: int64, the text of each cell of the request.
        draws: int64, the draw of each cell.
        errors: float32, the error of each cell.
        cut: number of cells evaluated so far.
    """

    interview: Interview
    joint: Joint
    pictures: list[Image]
    request: Evaluate | None = None
    texts: Ints = field(init=False)
    draws: Ints = field(init=False)
    errors: NDArray[np.float32] = field(init=False)
    cut: int = 0


class LikelihoodEngine:
    """Scores images with a likelihood.

    Args:
        backbone: the likelihood.
        texts: the prompts, or the pool of the items' texts.
        problem: the question that every image asks, about columns.
        columns: the prompts behind each column.
        batch_size: cells at a time; halved for good when memory runs out.
        views: the views of each image; None: the image alone.
        view_of_draw: int64 [N], the view that each draw sees.
    """

    device: str | None = None
    levels: Levels | None = None

    def __init__(
        self,
        backbone: CheckedLikelihood,
        texts: Sequence[str],
        problem: Problem,
        columns: Columns,
        batch_size: int,
        views: CheckedViews | None = None,
        view_of_draw: Ints | None = None,
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
        waiting: deque[_Flight] = deque()
        while True:
            while sum(len(flight.draws) - flight.cut for flight in waiting) < self.batch_size:
                arrival = next(arriving, None)
                if arrival is None:
                    break
                sample, opened = arrival
                if isinstance(opened, str):
                    yield Decided(sample, error=opened)
                    continue
                joint = Joint(sample, strategy, self.questions.of(sample), self.problem)
                for interview, pictures in zip(joint.interviews, opened, strict=True):
                    flight = _Flight(interview, joint, pictures)
                    if self._ask(flight):
                        waiting.append(flight)
                    elif whole := joint.ended():
                        yield whole
            if not waiting:
                return
            self._evaluate(waiting)
            while waiting and waiting[0].cut == len(waiting[0].draws):
                flight = waiting.popleft()
                self._tell(flight)
                if self._ask(flight):
                    waiting.append(flight)
                elif whole := flight.joint.ended():
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

    def _ask(self, flight: _Flight) -> bool:
        """Set up the next request; False when the image is decided, or has failed."""
        request = flight.interview.ask()
        if request is None:
            return False
        assert isinstance(request, Evaluate), "there are no gradients to linearise with"
        flight.request, flight.cut = request, 0
        flight.texts, flight.draws = flight.joint.question.cells(request)
        flight.errors = np.empty(len(flight.draws), np.float32)
        return True

    def _tell(self, flight: _Flight) -> None:
        assert flight.request is not None
        columns = flight.joint.question.columns
        values = columns.errors(flight.errors, len(flight.request.prompts))
        flight.interview.tell(flight.request, values, float(columns.each))

    def _evaluate(self, waiting: Iterable[_Flight]) -> None:
        """Evaluate a batch of the cells that wait; out of memory, a smaller one."""
        images: list[Image] = []
        texts: list[str] = []
        draws: list[Ints] = []
        parts: list[tuple[_Flight, slice]] = []
        for flight in waiting:
            stop = min(len(flight.draws), flight.cut + self.batch_size - len(texts))
            part = slice(flight.cut, stop)
            draw = flight.draws[part]
            images += [flight.pictures[view] for view in self.view_of_draw[draw]]
            texts += [self.texts[text] for text in flight.texts[part]]
            draws.append(self.numbers[draw])
            parts.append((flight, part))
            if len(texts) == self.batch_size:
                break
        try:
            errors = self.backbone.evaluate(images, texts, np.concatenate(draws))
        except torch.OutOfMemoryError:
            if self.batch_size == 1:
                raise
            self.batch_size //= 2
            return
        start = 0
        for flight, part in parts:
            count = part.stop - part.start
            flight.errors[part] = errors[start : start + count]
            flight.cut, start = part.stop, start + count


def draw_numbers(seed: int, n_draws: int) -> Ints:
    """Return int64 [N], the number that each draw of a seed has: seed · 100,000 + k."""
    return np.arange(n_draws, dtype=np.int64) + np.int64(seed * MOST_DRAWS)
