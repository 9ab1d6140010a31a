"""Engine for likelihoods: models that return the error of a cell themselves."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from PIL.Image import Image
from typing_extensions import override

from bench.contracts.backbone import Likelihood
from bench.contracts.dataset import Sample
from bench.contracts.strategy import Floats32, Ints, Problem
from bench.discovery.backbones import read_reduction
from bench.discovery.guard import guard
from bench.discovery.targets import with_defaults
from bench.engine.batching import Batch, Queue
from bench.engine.cells import CellEngine
from bench.engine.classifying import checked_floats
from bench.engine.images import CheckedViews, open_images
from bench.inputs.draws import MAX_DRAWS
from bench.inputs.prompts import Columns
from bench.machine.libraries import Tensor, torch

OPENED_IMAGES = 4  # images opened at a time


class CheckedLikelihood:
    """Wrapper that validates a plugin's likelihood; if `blind`, its `prior` scores texts alone."""

    def __init__(self, backbone: object, who: str) -> None:
        self.backbone, self.who = backbone, who
        self.key: object = None  # `backbone_key` of the run that made it
        self._model: Likelihood = with_defaults(backbone, Likelihood)
        self.reduction = read_reduction(backbone, who)
        self.blind = False

    def evaluate(self, images: Sequence[Image], texts: Sequence[str], draws: Ints) -> Floats32:
        """Return errors, float32 [B] (PluginError); torch.OutOfMemoryError passes."""
        method = "prior()" if self.blind else "evaluate()"
        with guard(self.who, method, (torch.OutOfMemoryError,)):
            if self.blind:
                returned = self._model.prior(texts, draws)
            else:
                returned = self._model.evaluate(images, texts, draws)
            return checked_floats(self.who, method, returned, (len(texts),), "cell")


class LikelihoodEngine(CellEngine):
    """Scores images with a likelihood. Batches are not padded."""

    def __init__(
        self,
        backbone: CheckedLikelihood,
        texts: Sequence[str],  # prompts, or the pool of the items' texts
        problem: Problem,  # question that every image asks, about columns
        columns: Columns,  # prompts behind each column
        batch_size: int,  # cells at a time
        views: CheckedViews | None = None,  # views of each image; None: the image alone
        view_of_draw: Ints | None = None,  # int64 [N], view that each draw sees
    ) -> None:
        super().__init__(problem, columns, batch_size, view_of_draw)
        self.backbone, self.texts, self.views = backbone, tuple(texts), views
        self.numbers = draw_numbers(problem.seed, len(problem.timesteps))

    @override
    def queues(self) -> list[Queue]:
        return [Queue(self, self._evaluate, self.view_of_draw)]

    @override
    def filled(self, count: int) -> int:
        """Return `count`: batches are not padded."""
        return count

    @override
    def arriving(
        self, samples: Iterable[Sample]
    ) -> Iterator[tuple[Sample, list[list[Image]] | str]]:
        yield from chain.from_iterable(open_images(samples, OPENED_IMAGES, self._views))

    def _views(self, image: Image, name: str) -> list[Image]:
        return [image] if self.views is None else self.views.of(image, self.problem.seed, name)

    def _evaluate(self, batch: Batch) -> Tensor:
        """Return the batch's errors, float32 [B]."""

        def errors(cells: Ints) -> Tensor:
            texts, draws, images = batch.cells[:, cells]
            values = self.backbone.evaluate(
                [batch.contents[image] for image in images],
                [self.texts[text] for text in texts],
                self.numbers[draws],
            )
            return torch.from_numpy(values)

        return self.in_batches(np.arange(len(batch)), errors)


def draw_numbers(seed: int, n_draws: int) -> Ints:
    """Return int64 [N], the number that each draw of a seed has: seed · 100,000 + k."""
    return np.arange(n_draws, dtype=np.int64) + np.int64(seed * MAX_DRAWS)
