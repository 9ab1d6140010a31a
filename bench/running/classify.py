"""Images of one's own: no labels, no store, an answer for each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING

from pydantic import Field

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.items import StoredImage
from bench.contracts.specs import DatasetSpec
from bench.errors import BenchWarning
from bench.running.prepare import prepare
from bench.running.settings import RunConfig
from bench.store.fields import Count, Document
from bench.store.records import finite

if TYPE_CHECKING:
    from PIL import Image

    Picture = str | PathLike[str] | Image.Image


class Place(Document):
    """A class in an image's ranking."""

    name: str = Field(serialization_alias="class")
    score: float | None
    """Its mean error, lower is better; None where it was never evaluated."""
    draws: Count
    """The draws behind the score."""
    given_up: bool
    """Whether the class was given up before the winner's last draw: its score rests on fewer draws
    than the winner's, and the two cannot be compared."""


class Answer(Document):
    """What one image is taken for."""

    image: str
    prediction: str | None
    margin: float | None
    margin_stderr: float | None
    confidence: float | None
    """The stability of the decision: the probability that other draws would decide the same way,
    and not that it is right. None where there is one draw only, as of a classifier."""
    evaluations: Count
    ranking: list[Place]
    error: str | None


def classify(
    config: RunConfig,
    images: Sequence[Picture],
    classes: Sequence[str] | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """Return what each image is taken for, in the order given.

    Args:
        config: the settings; its dataset gives classes and prompts where `classes` is None.
        images: paths, or images in memory.
        classes: class names, for the template.
        progress: called with the images decided and their total, at first with none.

    Raises:
        UserError: anything that is wrong before scoring.
    """
    pictures = None
    if classes is not None:
        target = "bench.running.classify:classify"
        pictures = DatasetSpec(name="pictures", target=target, classes=tuple(classes))
    prepared = prepare(config, pictures, images=False)
    for said in prepared.warnings:
        warnings.warn(said, BenchWarning, stacklevel=2)
    prepared.check()
    engine = prepared.open_engine()
    samples = [Sample(str(n), 0, _encoded(image)) for n, image in enumerate(images)]
    decided: dict[int, Decided] = {}
    progress(0, len(samples))
    for one in engine.score(samples, prepared.strategy):
        decided[int(one.sample.sample_id)] = one
        progress(len(decided), len(samples))
    return [_answer(name_of(images[n], n), decided[n], prepared.classes) for n in sorted(decided)]


def name_of(image: Picture, position: int) -> str:
    """Return what a message calls an image: its path, or its number where it has none."""
    return str(image) if isinstance(image, str | PathLike) else f"image {position}"


def _encoded(image: Picture) -> StoredImage:
    if isinstance(image, str | PathLike):
        return {"bytes": None, "path": str(image)}
    file = BytesIO()
    image.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def _answer(image: str, decided: Decided, classes: Sequence[str]) -> Answer:
    outcome = decided.outcome
    if outcome is None:
        return Answer(
            image=image,
            prediction=None,
            margin=None,
            margin_stderr=None,
            confidence=None,
            evaluations=decided.evaluations,
            ranking=[],
            error=decided.error,
        )
    most = outcome.draws[outcome.ranking[0]]
    return Answer(
        image=image,
        prediction=classes[outcome.ranking[0]],
        margin=finite(outcome.margin),
        margin_stderr=finite(outcome.margin_stderr),
        confidence=finite(outcome.confidence),
        evaluations=decided.evaluations,
        ranking=[
            Place(
                name=classes[c],
                score=finite(outcome.scores[c]),
                draws=int(outcome.draws[c]),
                given_up=bool(outcome.draws[c] < most),
            )
            for c in outcome.ranking
        ],
        error=None,
    )
