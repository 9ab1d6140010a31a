"""The engine for classifiers that score directly: one draw whose error is minus the logit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from bench.discovery.targets import offers, with_defaults
from bench.engine.images import open_images
from bench.engine.items import Joint, Question, Questions
from bench.errors import PluginError
from bench.inputs.templates import Columns


class CheckedClassifier:
    """A plugin's classifier behind the guard: one logit per image and text.

    Args:
        backbone: made by the plugin, with the contract's base or without.
        who: what a message calls it.

    Attributes:
        makes_ensembles: whether it makes one of several texts by itself.
    """

    def __init__(self, backbone: object, who: str) -> None:
        self.backbone, self.who = backbone, who
        self._model: Classifier = with_defaults(backbone, Classifier)
        self.makes_ensembles = offers(backbone, Classifier.score_sets)

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts].

        Raises:
            PluginError: it raised something, or returned something else.
        """
        with guard(self.who, "score()"):
            given: NDArray[Any] = np.asarray(self._model.score(images, texts))
        return self._checked("score()", given, (len(images), len(texts)), "text")

    def _checked(
        self, call: str, given: NDArray[Any], shape: tuple[int, int], each: str
    ) -> NDArray[np.float32]:
        if given.shape != shape or given.dtype.kind != "f":
            raise PluginError(
                self.who,
                f"{call} returned {given.dtype} {list(given.shape)}; floats {list(shape)}, one per"
                f" image and {each}, are wanted",
            )
        return given.astype(np.float32)

    def fit(self, images: Iterable[Image], labels: Sequence[str]) -> dict[str, Any]:
        """Have a classifier that learns do so; return what it says of the result.

        Raises:
            UserError: what it says of the images.
            PluginError: it raised something else, or returned what JSON does not hold.
        """
        with guard(self.who, "fit()"):
            said = self._model.fit(images, labels)
            facts: Any = json.loads(json.dumps(dict(said or {}), allow_nan=False))
        return dict(facts)


class CheckedEnsemble(CheckedClassifier):
    """A classifier that makes one of the several texts of each class by itself.

    Every text of a class has the class's logit, so that their mean is that logit.

    Args:
        classifier: it has `score_sets`.
        texts: the prompts, in order.
        columns: the prompts of each class.
    """

    def __init__(
        self, classifier: CheckedClassifier, texts: Sequence[str], columns: Columns
    ) -> None:
        super().__init__(classifier.backbone, classifier.who)
        self.sets = [[texts[text] for text in members] for members in columns.members.tolist()]
        self.set_of_text = np.zeros(len(texts), np.int64)
        for number, members in enumerate(columns.members):
            self.set_of_text[members] = number

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits, float32 [images, texts], of all the texts.

        Raises:
            PluginError: it raised something, or returned something else.
        """
        with guard(self.who, "score_sets()"):
            given: NDArray[Any] = np.asarray(self._model.score_sets(images, self.sets))
        shape = len(images), len(self.sets)
        return self._checked("score_sets()", given, shape, "set")[:, self.set_of_text]


class ClassifyingEngine:
    """Scores images with a classifier, `batch_size` images at a time.

    Args:
        backbone: the classifier.
        texts: the prompts.
        problem: the question every image asks, about columns.
        columns: the prompts behind each column.
        batch_size: images at a time.
        fitted: what a classifier that learned says of the result.
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
        self.backbone = backbone
        self.device: str | None = None
        self.levels: Levels | None = None
        self.texts = tuple(texts)
        self.problem, self.questions = problem, Questions(Question(problem, columns))
        self.batch_size = batch_size
        self.fitted = fitted

    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each sample as it is decided."""
        for group in open_images(samples, self.batch_size):
            images = [
                image for _, opened in group if not isinstance(opened, str) for image in opened
            ]
            texts, place_of = self._texts(sample for sample, _ in group)
            logits = iter(self.backbone.score(images, texts) if images else ())
            for sample, opened in group:
                if isinstance(opened, str):
                    yield Decided(sample, error=opened)
                    continue
                joint = Joint(sample, strategy, self._question(sample, place_of), self.problem)
                for interview in joint.interviews:
                    self._decide(interview, next(logits), joint.question)
                    if whole := joint.ended():
                        yield whole

    def _texts(self, samples: Iterable[Sample]) -> tuple[Sequence[str], dict[int, int]]:
        """Return the texts that some samples need, and of items the place of each among them."""
        asked = {text for sample in samples if sample.item for text in sample.item.texts}
        if not asked:
            return self.texts, {}
        place_of = {text: place for place, text in enumerate(sorted(asked))}
        return [self.texts[text] for text in place_of], place_of

    def _question(self, sample: Sample, place_of: Mapping[int, int]) -> Question:
        question = self.questions.of(sample)
        if question.texts is None:
            return question
        places = np.array([place_of[int(text)] for text in question.texts])
        return replace(question, texts=places)

    @staticmethod
    def _decide(interview: Interview, logits: NDArray[np.float32], question: Question) -> None:
        """Let one image be decided by its logits, float32 [texts]."""
        needed = logits if question.texts is None else logits[question.texts]
        if not np.isfinite(needed).all():
            strange = needed[~np.isfinite(needed)][0]
            interview.decided.error = f"the model's logit is {strange}"
        while (request := interview.ask()) is not None:
            assert isinstance(request, Evaluate), "there are no gradients to linearise with"
            texts, _ = question.cells(request)
            values = question.columns.errors(-logits[texts], len(request.prompts))
            interview.tell(request, values, float(question.columns.each))
