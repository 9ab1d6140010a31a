"""Runs of classifiers, which score an image once, and of likelihoods, which return errors."""

from typing import Any

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
from bench.errors import UserError
from bench.inputs.draws import MAX_DRAWS
from bench.inputs.replaced import TEXT_ONLY
from bench.machine.environment import pick_device
from bench.running.borrowed import find_fit_split, images_to_learn
from bench.running.finders import view_of_each_draw, views_identity
from bench.running.question import Resolved, RunQuestion, ScorerKind
from bench.store.fields import without_none
from bench.store.identity import ScoringIdentity

IMAGES_PER_BATCH = 16


class ClassifierKind(ScorerKind[CheckedClassifier]):
    """Runs of a classifier, which may be fitted to another split first."""

    one_draw = True

    @override
    def scoring(self, question: RunQuestion) -> ScoringIdentity:
        return ScoringIdentity()

    @override
    def checked(self, question: RunQuestion, backbone: Any) -> CheckedClassifier:
        return CheckedClassifier(backbone, question.backbone.label)

    @override
    def open_engine(
        self, question: RunQuestion, backbone: CheckedClassifier | None = None
    ) -> Engine:
        prompts = question.prompts
        backbone = self.backbone_of(question, backbone)
        columns = question.columns()
        if columns.per_column > 1 and offers(backbone.backbone, Classifier.score_sets):
            backbone = CheckedEnsemble(backbone, prompts.texts, columns)
        fit = question.learns_from or find_fit_split(question, question.split)
        engine = ClassifyingEngine(
            backbone,
            prompts.texts,
            self.problem(question, columns),
            columns,
            question.batch_size or IMAGES_PER_BATCH,
            backbone.fit(images_to_learn(fit), [prompts.texts[label] for label in fit.labels])
            if fit
            else None,
        )
        engine.device = pick_device(question.config.device).partition(":")[0]
        return engine


CELLS_PER_BATCH = 64


class LikelihoodKind(ScorerKind[CheckedLikelihood]):
    """Runs of a likelihood."""

    @override
    def reduction(self, question: Resolved) -> str:
        return reduction_of(question.backbone)

    @override
    def draws_at_random(self, resolved: Resolved) -> bool:
        return resolved.views is not None or not has_flag(resolved.backbone, "draws_are_equal")

    @override
    def check(self, question: RunQuestion) -> None:
        name, views, seed = question.backbone_name, question.views, question.config.seed
        if seed > (largest := (2**63 - 1) // MAX_DRAWS - 1):
            raise UserError(f"--seed {seed}: must be at most {largest} for a likelihood.")
        most = 1 if views is None else views.views.count
        if question.n_draws > most and has_flag(question.backbone, "draws_are_equal"):
            raise UserError(
                f"draws={question.n_draws}: backbone {name!r} has nothing random, so that an image,"
                f" or each of its --views, has a single draw. Use {most}."
            )

    @override
    def scoring(self, question: RunQuestion) -> ScoringIdentity:
        return ScoringIdentity(
            noise=f"seed {question.config.seed}",
            reduction=self.reduction(question),
            **without_none(views=views_identity(question.views)),
        )

    @override
    def checked(self, question: RunQuestion, backbone: Any) -> CheckedLikelihood:
        return CheckedLikelihood(backbone, question.backbone.label)

    @override
    def open_engine(
        self, question: RunQuestion, backbone: CheckedLikelihood | None = None
    ) -> Engine:
        prompts = question.prompts
        backbone = self.backbone_of(question, backbone)
        backbone.blind = question.config.control == TEXT_ONLY
        columns = question.columns()
        engine = LikelihoodEngine(
            backbone,
            prompts.texts,
            self.problem(question, columns),
            columns,
            question.batch_size or CELLS_PER_BATCH,
            None if question.views is None else question.views.views,
            view_of_each_draw(question.views, question.n_draws, question.plan),
        )
        engine.device = pick_device(question.config.device).partition(":")[0]
        return engine
