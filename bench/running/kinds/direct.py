"""Runs of classifiers, which score an image once, and of likelihoods, which return errors."""

from collections.abc import Iterator
from typing import Any

from PIL.Image import Image
from typing_extensions import override

from bench.contracts.backbone import Classifier
from bench.discovery.backbones import has_flag, reduction_of
from bench.discovery.targets import offers
from bench.engine.asking import Engine
from bench.engine.direct import (
    CheckedClassifier,
    CheckedEnsemble,
    CheckedLikelihood,
    ClassifyingEngine,
    LikelihoodEngine,
)
from bench.errors import UserError, quoted, refusing
from bench.inputs.draws import MAX_DRAWS
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.replaced import TEXT_ONLY
from bench.inputs.split import Split
from bench.running.content import Content, ScorerKind
from bench.running.parts.names import Names
from bench.store.formats.fields import without_none
from bench.store.formats.identity import ScoringIdentity

IMAGES_PER_BATCH = 16


class ClassifierKind(ScorerKind[CheckedClassifier]):
    """Runs of a classifier, which may be fitted to another split first."""

    one_draw = True

    @override
    def scoring(self, content: Content) -> ScoringIdentity:
        return ScoringIdentity()

    @override
    def checked(self, content: Content, backbone: Any) -> CheckedClassifier:
        return CheckedClassifier(backbone, content.names.backbone.label)

    @override
    def engine(self, content: Content, backbone: CheckedClassifier) -> Engine:
        prompts, columns, fit = content.prompts, content.columns(), content.learns_from
        if columns.per_column > 1 and offers(backbone.backbone, Classifier.score_sets):
            backbone = CheckedEnsemble(backbone, prompts.texts, columns)
        return ClassifyingEngine(
            backbone,
            prompts.texts,
            self.problem(content, columns),
            columns,
            content.names.batch_size or IMAGES_PER_BATCH,
            backbone.fit(images_to_learn(fit), [prompts.texts[label] for label in fit.labels])
            if fit
            else None,
        )


def images_to_learn(split: Split) -> Iterator[Image]:
    """Yield each image of a split, decoded. Raises UserError if one cannot be read."""
    for sample in split.samples(split.sample_ids):
        name = f"{quoted(sample.sample_id)} of {split.split!r}, the split to learn from,"
        with refusing(f"The image {name} cannot be read: ", PixelsError):
            yield decode(sample.image)


CELLS_PER_BATCH = 64


class LikelihoodKind(ScorerKind[CheckedLikelihood]):
    """Runs of a likelihood."""

    @override
    def reduction(self, names: Names) -> str:
        return reduction_of(names.backbone)

    @override
    def draws_at_random(self, names: Names) -> bool:
        return names.views is not None or not has_flag(names.backbone, "draws_are_equal")

    @override
    def check(self, content: Content) -> None:
        names, seed = content.names, content.config.seed
        if seed > (largest := (2**63 - 1) // MAX_DRAWS - 1):
            raise UserError(f"--seed {seed}: must be at most {largest} for a likelihood.")
        most = 1 if names.views is None else names.views.views.count
        if names.n_draws > most and has_flag(names.backbone, "draws_are_equal"):
            raise UserError(
                f"draws={names.n_draws}: backbone {names.source.name!r} has nothing random, so"
                f" that an image, or each of its --views, has a single draw. Use {most}."
            )

    @override
    def scoring(self, content: Content) -> ScoringIdentity:
        return ScoringIdentity(
            noise=f"seed {content.config.seed}",
            reduction=self.reduction(content.names),
            **without_none(views=content.names.views and content.names.views.identity),
        )

    @override
    def checked(self, content: Content, backbone: Any) -> CheckedLikelihood:
        return CheckedLikelihood(backbone, content.names.backbone.label)

    @override
    def engine(self, content: Content, backbone: CheckedLikelihood) -> Engine:
        names, columns = content.names, content.columns()
        backbone.blind = content.config.control == TEXT_ONLY
        return LikelihoodEngine(
            backbone,
            content.prompts.texts,
            self.problem(content, columns),
            columns,
            names.batch_size or CELLS_PER_BATCH,
            None if names.views is None else names.views.views,
            names.view_of_draw(),
        )
