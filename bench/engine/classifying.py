"""The engine for classifiers that score directly: one draw whose error is minus the logit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bench.contracts.backbone import Classifier
from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Linearise, Problem, Strategy
from bench.engine.encoding import open_images


class ClassifyingEngine:
    """Scores images with a classifier, `batch_size` images at a time."""

    def __init__(
        self, backbone: Classifier, texts: Sequence[str], problem: Problem, batch_size: int
    ) -> None:
        self.backbone = backbone
        self.device: str | None = None
        self.texts = tuple(texts)
        self.problem = problem
        self.batch_size = batch_size

    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided."""
        for group in open_images(samples, self.batch_size):
            images: list[Any] = [image for _, image in group if not isinstance(image, str)]
            errors = iter(-np.asarray(self.backbone.score(images, self.texts)) if images else ())
            for sample, image in group:
                if isinstance(image, str):
                    yield Decided(sample, error=image)
                else:
                    yield self._decide(sample, next(errors).astype(np.float32), strategy)

    def _decide(self, sample: Sample, errors: Any, strategy: Strategy) -> Decided:
        decided = Decided(sample)
        if not np.isfinite(errors).all():
            decided.error = f"the model's logit is {-errors[~np.isfinite(errors)][0]}"
            return decided
        session = strategy.start(self.problem)
        while (request := session.ask()) is not None:
            if isinstance(request, Linearise):
                raise ValueError("the strategy asked a classifier for a linearisation")
            values = np.tile(errors[request.prompts, None], len(request.draws))
            decided.answer(session, request, values)
        decided.outcome = session.outcome()
        return decided
