"""The engine for classifiers that score directly: one draw whose error is minus the logit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from bench.contracts.backbone import Classifier
from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided, Interview
from bench.contracts.levels import Levels
from bench.contracts.strategy import Evaluate, Problem, Strategy
from bench.discovery.guard import guard
from bench.engine.encoding import open_images
from bench.errors import PluginError
from bench.inputs.templates import Columns


class CheckedClassifier:
    """A plugin's classifier behind the guard: one logit per image and text.

    Args:
        backbone: made by the plugin.
        who: what a message calls it.
    """

    def __init__(self, backbone: Classifier, who: str) -> None:
        self.backbone, self.who = backbone, who

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts].

        Raises:
            PluginError: it raised something, or returned something else.
        """
        with guard(self.who, "score()"):
            given: NDArray[Any] = np.asarray(self.backbone.score(images, texts))
        if given.shape != (len(images), len(texts)) or given.dtype.kind != "f":
            raise PluginError(
                self.who,
                f"score() returned {given.dtype} {list(given.shape)}; floats"
                f" [{len(images)}, {len(texts)}], one per image and text, are wanted",
            )
        return given.astype(np.float32)


class ClassifyingEngine:
    """Scores images with a classifier, `batch_size` images at a time.

    Args:
        backbone: the classifier.
        texts: the prompts.
        problem: the question every image asks, about columns.
        columns: the prompts behind each column.
        batch_size: images at a time.
    """

    def __init__(
        self,
        backbone: CheckedClassifier,
        texts: Sequence[str],
        problem: Problem,
        columns: Columns,
        batch_size: int,
    ) -> None:
        self.backbone = backbone
        self.device: str | None = None
        self.levels: Levels | None = None
        self.texts = tuple(texts)
        self.problem, self.columns = problem, columns
        self.batch_size = batch_size

    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided."""
        for group in open_images(samples, self.batch_size):
            images = [image for _, image in group if not isinstance(image, str)]
            logits = iter(self.backbone.score(images, self.texts) if images else ())
            for sample, image in group:
                if isinstance(image, str):
                    yield Decided(sample, error=image)
                else:
                    yield self._decide(sample, next(logits), strategy)

    def _decide(self, sample: Sample, logits: NDArray[np.float32], strategy: Strategy) -> Decided:
        if not np.isfinite(logits).all():
            strange = logits[~np.isfinite(logits)][0]
            return Decided(sample, error=f"the model's logit is {strange}")
        interview = Interview(sample, strategy, self.problem)
        while (request := interview.ask()) is not None:
            assert isinstance(request, Evaluate), "there are no gradients to linearise with"
            prompts, _ = self.columns.cells(request.prompts, request.draws)
            values = self.columns.errors(-logits[prompts], len(request.prompts))
            interview.tell(request, values, float(self.columns.each))
        return interview.decided
