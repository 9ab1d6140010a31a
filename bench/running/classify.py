"""Classify the user's own images, without labels and without storing a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field
from typing_extensions import override

from bench.contracts.dataset import Sample, StoredImage
from bench.contracts.decision import Decided
from bench.contracts.specs import DatasetSpec
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError, refusing, warn_user
from bench.inputs.pixels import encode
from bench.inputs.split import Split
from bench.machine.offline import offline_if_set
from bench.machine.stages import counted
from bench.running.borrowed import find_fit_split
from bench.running.content import Content
from bench.running.manifest import make_manifest
from bench.running.parts.decision import make_decider
from bench.running.parts.declaration import option
from bench.running.parts.settings import SETTINGS, RunConfig
from bench.running.prepare import Preloaded, read_content
from bench.running.risk import choose_setting
from bench.stats.calibration.agreement import FEWEST_DRAWS, flip_probability
from bench.stats.calibration.probability import fit_for, probabilities
from bench.store.calibrations import find_calibrations
from bench.store.formats.decisions import as_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Count, Document
from bench.store.formats.identity import CalibratedOn
from bench.store.formats.journal import finite, make_record

Picture = str | PathLike[str] | Image.Image


class RankedClass(Document):
    """One class in the ranking of an image."""

    name: str = Field(serialization_alias="class")  # name of the class
    score: float | None  # mean error, lower is better; None if it was never evaluated
    draws: Count  # number of draws in the score
    given_up: bool
    """Whether the score has fewer draws than the winner's, so that the two are not comparable."""


class Answer(Document):
    """The decision on one image."""

    image: str  # path, or number, of the image
    prediction: str | None = None  # name of the winning class; None if the image failed
    margin: float | None = None  # score of the runner-up minus the winner's
    margin_stderr: float | None = None  # standard error of the margin
    confidence: float | None = Field(None, repr=False)
    """Normal probability that the winner's expected error is below the runner-up's, from margin and
    standard error. Too high if the strategy stops at a significant difference. It is not the
    probability that the class is right. None with a single draw, as for a classifier."""
    probability: float | None = None
    """Probability that the decision is right, for an image like those of the dataset. None without
    a calibration of the same task and strategy."""
    stability: float | None = None
    """`confidence` of a strategy with fixed draws; None for one that stops once it is large."""
    evaluations: Count  # number of forward passes of the network
    ranking: list[RankedClass] = Field(default_factory=list, repr=False)  # classes, best first
    error: str | None = None  # reason why the image failed

    def change_probability(self, strategy: CheckedStrategy) -> float | None:
        """Return the probability that other noise would change the answer; None if unknown."""
        if not strategy.same_draws or self.margin is None or not self.margin_stderr:
            return None
        if self.ranking[0].draws < FEWEST_DRAWS:
            return None
        first, *others = [place.score for place in self.ranking]
        gaps = [np.inf if first is None or score is None else score - first for score in others]
        margin, stderr = np.array([self.margin]), np.array([self.margin_stderr])
        return float(flip_probability(margin, stderr, np.array([gaps]))[0])

    @override
    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield the fields that are not None, numbers with four digits, without the ranking."""
        for name, value in super().__repr_args__():
            if value is not None:
                yield name, float(f"{value:.4g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class Classified:
    """The answers, in the order of the images, with their strategy and calibrations."""

    answers: list[Answer]
    strategy: CheckedStrategy
    stated: CalibratedOn | None = None
    """Calibration that chose the parameters for a stated risk; None without one."""
    calibrated: tuple[Manifest, int] | None = None
    """Run whose images the probabilities were fitted on, and their number. None without a
    calibration of the same task and strategy."""


@offline_if_set
def classify(
    config: RunConfig,
    images: Sequence[Picture],
    classes: Sequence[str] | None,
    loaded: Any = None,
) -> Classified:
    """Classify images, which are paths or in memory (UserError before anything is scored).

    Without `classes`, they are classified by the classes and prompts of the dataset. `loaded` is
    the backbone that `config` names, if the caller has loaded it.
    """
    for name in config.changed():
        if not SETTINGS[name].in_classify:
            raise UserError(f"{option(name)} has no effect on images that are not of a split.")
    pictures = None
    if classes is not None:
        config.check_mode("classes", "--classes")
        target = "bench.running.classify:classify"
        pictures = DatasetSpec(name="pictures", target=target, classes=tuple(classes))
    content = read_content(config, Preloaded(pictures, loaded=loaded))
    for warning in content.warnings:
        warn_user(warning)
    content.check()
    stated = fitted = None
    if pictures is None:
        manifest = _manifest_of_pictures(content, len(images))
        if (risk := content.names.stated_risk()) is not None:
            params, stated = choose_setting(risk, manifest)
            content = content.naming(decider=make_decider(risk.decider.spec, params))
            manifest = _manifest_of_pictures(content, len(images))
        fitted = fit_for(manifest, find_calibrations(Path(content.config.results)))
    fit_split = content.learns_from or find_fit_split(content.names, None)
    engine = content.kind.open_engine(replace(content, learns_from=fit_split))
    strategy = content.names.strategy
    samples = [Sample(str(n), 0, _encoded(image, n)) for n, image in enumerate(images)]
    scored = counted(engine.score(samples, strategy), "Classifying", len(samples))
    decided = sorted(scored, key=lambda decision: int(decision.sample.sample_id))
    names = content.class_names.names
    answers = [
        _answer(name_of(image, n), decision, names, strategy)
        for n, (image, decision) in enumerate(zip(images, decided, strict=True))
    ]
    if fitted is None:
        return Classified(answers, strategy, stated)
    calibrated, fit = fitted
    right = probabilities(fit, as_decisions([make_record(decision, 0.0) for decision in decided]))
    answers = [
        answer.model_copy(update={"probability": finite(value)})
        for answer, value in zip(answers, right.tolist(), strict=True)
    ]
    return Classified(answers, strategy, stated, (calibrated.manifest, fit.images))


def _manifest_of_pictures(content: Content, count: int) -> Manifest:
    """Return the manifest of a run on `count` images, to look up its calibrations."""
    spec, ids = content.names.dataset, tuple(f"picture:{n}" for n in range(count))
    pictures = Split(
        name=spec.name,
        version=spec.version,
        split="pictures",
        class_names=content.class_names,
        sample_ids=ids,
        labels=(0,) * count,
        rows=None,
        survey=("", True),  # not needed: a calibration is on other images anyway
    )
    return make_manifest(content, pictures)


def name_of(image: Picture, position: int) -> str:
    """Return an image's path, or `image N` if it is in memory."""
    return str(image) if isinstance(image, str | PathLike) else f"image {position}"


def _encoded(image: Picture, position: int) -> StoredImage:
    if isinstance(image, str | PathLike):
        return {"bytes": None, "path": str(image)}
    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise UserError(f"image {position} is a {kind}; expected a path or an image of PIL.")
    with refusing(f"image {position} cannot be read: ", OSError, ValueError):
        return {"bytes": encode(image), "path": None}


def _answer(
    image: str, decided: Decided, classes: Sequence[str], strategy: CheckedStrategy
) -> Answer:
    outcome = decided.outcome
    if outcome is None:
        return Answer(image=image, evaluations=decided.evaluations, error=decided.error)
    winner_draws = outcome.draws[outcome.ranking[0]]
    return Answer(
        image=image,
        prediction=classes[outcome.ranking[0]],
        margin=finite(outcome.margin),
        margin_stderr=finite(outcome.margin_stderr),
        confidence=finite(outcome.confidence),
        stability=finite(outcome.confidence) if strategy.same_draws else None,
        evaluations=decided.evaluations,
        ranking=[
            RankedClass(
                name=classes[c],
                score=finite(outcome.scores[c]),
                draws=int(outcome.draws[c]),
                given_up=bool(outcome.draws[c] < winner_draws),
            )
            for c in outcome.ranking
        ],
    )
