"""Engine for classifiers that score images directly, such as CLIP.

A classifier has a single draw, and the error of a cell is the negative logit.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from pydantic import JsonValue
from typing_extensions import override

from bench.contracts.backbone import Classifier
from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Evaluate, Floats32, Problem
from bench.discovery.guard import guard
from bench.discovery.targets import with_defaults
from bench.engine.asking import CheckedStrategy, Interview
from bench.engine.images import open_images
from bench.engine.items import Joint, Question, Questions
from bench.errors import PluginError
from bench.inputs.prompts import Columns


class CheckedClassifier:
    """Wrapper that validates the logits of a plugin's classifier, called `who` in messages."""

    def __init__(self, backbone: object, who: str) -> None:
        self.backbone, self.who = backbone, who
        self.key: object = None  # `backbone_key` of the run that made it
        self._model: Classifier = with_defaults(backbone, Classifier)

    def score(self, images: Sequence[Image], texts: Sequence[str]) -> Floats32:
        """Return logits, float32 [images, texts]; a PluginError for anything else."""
        shape = len(images), len(texts)
        with guard(self.who, "score()"):
            logits = self._model.score(images, texts)
            return checked_floats(self.who, "score()", logits, shape, "image and text")

    def fit(self, images: Iterable[Image], labels: Sequence[str]) -> dict[str, JsonValue]:
        """Fit a classifier that learns (UserError); return its facts, as JSON (PluginError)."""
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
        for number, members in enumerate(columns.members):
            self.set_of_text[members] = number

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
    """Return a plugin's floats as float32 of this shape, one per `unit`, or raise `PluginError`."""
    values: NDArray[Any] = np.asarray(returned)
    if values.shape != shape or values.dtype.kind != "f":
        raise PluginError(
            who,
            f"{call} returned {values.dtype} {list(values.shape)}; floats {list(shape)}, one per"
            f" {unit}, are wanted",
        )
    return values.astype(np.float32)


class ClassifyingEngine:
    """Scores images with a classifier.

    `texts` are the prompts, or all texts of the items; `problem` is about `columns`; `batch_size`
    is in images; `fitted` is what `fit` of a learning classifier returned.
    """

    device: str | None = None
    levels: Levels | None = None

    def __init__(
        self,
        backbone: CheckedClassifier,
        texts: Sequence[str],
        problem: Problem,
        columns: Columns,
        batch_size: int,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone, self.texts, self.fitted = backbone, tuple(texts), fitted
        self.problem, self.questions = problem, Questions(Question(problem, columns))
        self.batch_size = batch_size

    def score(self, samples: Iterable[Sample], strategy: CheckedStrategy) -> Iterator[Decided]:
        """Yield each sample as it is decided."""
        for group in open_images(samples, self.batch_size):
            readable = [opened for _, opened in group if not isinstance(opened, str)]
            images = [image for opened in readable for (image,) in opened]
            # Items have texts of their own: only those of the group are scored.
            own = sorted({t for sample, _ in group if sample.item for t in sample.item.texts})
            texts = [self.texts[text] for text in own] if own else self.texts
            logits = iter(self.backbone.score(images, texts) if images else ())
            for sample, opened in group:
                if isinstance(opened, str):
                    yield Decided(sample, error=opened)
                    continue
                question = self.questions.of(sample)
                if question.texts is not None:
                    question = replace(question, texts=np.searchsorted(own, question.texts))
                joint = Joint(sample, strategy, question, self.problem)
                for interview in joint.interviews:
                    _decide(interview, next(logits), question)
                    if whole := joint.finish_image():
                        yield whole


def _decide(interview: Interview, logits: Floats32, question: Question) -> None:
    """Let one image be decided by its logits, float32 [texts]."""
    needed = logits if question.texts is None else logits[question.texts]
    if not (finite := np.isfinite(needed)).all():
        interview.decided.error = f"the model's logit is {needed[~finite][0]}"
    while (request := interview.ask()) is not None:
        assert isinstance(request, Evaluate), "there are no gradients to linearise with"
        texts, _ = question.cells(request)
        values = question.columns.errors(-logits[texts], len(request.prompts))
        interview.tell(request, values)
