"""Engines for models that score images directly: classifiers such as CLIP, and likelihoods.

A classifier has a single draw, and the error of a cell is the negative logit. A likelihood returns
the error of a cell itself.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from pydantic import JsonValue
from typing_extensions import override

from bench.contracts.backbone import Classifier, Likelihood
from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts
from bench.contracts.strategy import Evaluate, Floats32, Ints, Problem
from bench.discovery.backbones import read_reduction
from bench.discovery.guard import guard
from bench.discovery.targets import with_defaults
from bench.engine.asking import CheckedSession, CheckedStrategy, Engine
from bench.engine.batching import Batch, CellEngine, Queue
from bench.engine.images import CheckedViews, open_images
from bench.engine.items import PromptedProblem, SampleInProgress
from bench.errors import PluginError
from bench.inputs.draws import MAX_DRAWS
from bench.inputs.prompts import Columns
from bench.machine.libraries import Tensor, torch


class CheckedClassifier:
    """Wrapper that validates the logits of a plugin's classifier, called `who` in messages."""

    def __init__(self, backbone: object, who: str) -> None:
        self.backbone, self.who = backbone, who
        self.key: object = None  # `backbone_key` of the run that made it
        self._model: Classifier = with_defaults(backbone, Classifier)

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> Floats32:
        """Return logits, float32 [images, texts]. Raises PluginError for anything else."""
        shape = len(images), len(texts)
        with guard(self.who, "score()"):
            logits = self._model.score(images, texts)
            return checked_floats(self.who, "score()", logits, shape, "image and text")

    def fit(self, images: Iterable[Image], labels: Sequence[str]) -> dict[str, JsonValue]:
        """Fit a classifier that learns and return its facts. Raises UserError or PluginError."""
        with guard(self.who, "fit()"):
            facts = self._model.fit(images, labels)
            return dict(json.loads(json.dumps(dict(facts or {}), allow_nan=False)))


class CheckedEnsemble(CheckedClassifier):
    """Classifier with prompt ensembles: `score_sets` returns one logit for the texts of a class.

    Every text of a class is given the logit of the class, so that their mean is the class's logit.
    """

    def __init__(
        self, classifier: CheckedClassifier, texts: Sequence[str], columns: Columns
    ) -> None:
        super().__init__(classifier.backbone, classifier.who)
        self.sets = [[texts[text] for text in members] for members in columns.members.tolist()]
        self.set_of_text = np.zeros(len(texts), np.int64)
        self.set_of_text[columns.members] = np.arange(len(self.sets))[:, None]

    @override
    def score(self, images: Sequence[Image], texts: Sequence[str]) -> Floats32:
        shape = len(images), len(self.sets)
        with guard(self.who, "score_sets()"):
            logits = self._model.score_sets(images, self.sets)
            logits = checked_floats(self.who, "score_sets()", logits, shape, "image and set")
        return logits[:, self.set_of_text]


def checked_floats(
    who: str, call: str, returned: object, shape: tuple[int, ...], unit: str
) -> Floats32:
    """Return the floats of a plugin as float32 of this shape. Raises PluginError otherwise."""
    values: NDArray[Any] = np.asarray(returned)
    if values.shape != shape or values.dtype.kind != "f":
        raise PluginError(
            who,
            f"{call} returned {values.dtype} {list(values.shape)}; floats {list(shape)}, one per"
            f" {unit}, are wanted",
        )
    return values.astype(np.float32)


class ClassifyingEngine(Engine):
    """Scores images with a classifier.

    `texts` are the prompts, or all texts of the items; `batch_size` is in images.
    """

    def __init__(
        self,
        backbone: CheckedClassifier,
        texts: Sequence[str],
        problem: Problem,
        columns: Columns,
        batch_size: int,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone, self.texts, self.batch_size = backbone, tuple(texts), batch_size
        self.model = ModelFacts(problem, fitted=fitted)
        self.prompted = PromptedProblem(problem, columns)

    @override
    def score(self, samples: Iterable[Sample], strategy: CheckedStrategy) -> Iterator[Decided]:
        for group in open_images(samples, self.batch_size):
            readable = [opened for _, opened in group if not isinstance(opened, str)]
            images = [image for opened in readable for (image,) in opened]
            # Items have texts of their own: only the texts of this group are scored.
            own = sorted({t for sample, _ in group if sample.item for t in sample.item.texts})
            scored = own or range(len(self.texts))
            logits = np.full((len(images), len(self.texts)), np.nan, np.float32)
            if images:
                texts = [self.texts[text] for text in scored]
                logits[:, scored] = self.backbone.score(images, texts)
            rows = iter(logits)
            for sample, opened in group:
                if isinstance(opened, str):
                    yield Decided(sample, error=opened)
                    continue
                started = SampleInProgress(sample, strategy, self.prompted)
                for session in started.sessions:
                    _decide(session, next(rows), started.prompted)
                    if whole := started.finish_image():
                        yield whole


def _decide(session: CheckedSession, logits: Floats32, prompted: PromptedProblem) -> None:
    """Have the strategy decide one image from its logits, float32 [texts]."""
    needed = logits if prompted.texts is None else logits[prompted.texts]
    if not (finite := np.isfinite(needed)).all():
        session.decided.error = f"the model's logit is {needed[~finite][0]}"
    while (request := session.ask()) is not None:
        assert isinstance(request, Evaluate), "there are no gradients to linearise with"
        texts, _ = prompted.cells(request)
        values = prompted.columns.errors(-logits[texts], len(request.prompts))
        session.tell(request, values)


OPENED_IMAGES = 4  # images opened at a time


class CheckedLikelihood:
    """Wrapper that validates a plugin's likelihood. If `blind`, `prior` scores the texts alone."""

    def __init__(self, backbone: object, who: str) -> None:
        self.backbone, self.who = backbone, who
        self.key: object = None  # `backbone_key` of the run that made it
        self._model: Likelihood = with_defaults(backbone, Likelihood)
        self.reduction = read_reduction(backbone, who)
        self.blind = False

    def evaluate(
        self, images: Sequence[Image], texts: Sequence[str], draws: Ints, n_draws: int
    ) -> Floats32:
        """Return the errors of cells, float32 [B]; torch.OutOfMemoryError passes."""
        method = "prior()" if self.blind else "evaluate()"
        with guard(self.who, method, (torch.OutOfMemoryError,)):
            if self.blind:
                returned = self._model.prior(texts, draws)
            else:
                returned = self._model.evaluate_of(images, texts, draws, n_draws)
            return checked_floats(self.who, method, returned, (len(texts),), "cell")


class LikelihoodEngine(CellEngine):
    """Scores images with a likelihood. Batches are not padded."""

    def __init__(
        self,
        backbone: CheckedLikelihood,
        texts: Sequence[str],  # prompts, or the pool of the items' texts
        problem: Problem,  # problem of an image; its prompts are columns
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
    def load_images(
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
                len(self.numbers),
            )
            return torch.from_numpy(values)

        return self.in_batches(np.arange(len(batch)), errors)


def draw_numbers(seed: int, n_draws: int) -> Ints:
    """Return the numbers of a seed's draws, int64 [N], unique among seeds: seed · MAX_DRAWS + k."""
    return np.arange(n_draws, dtype=np.int64) + np.int64(seed * MAX_DRAWS)
