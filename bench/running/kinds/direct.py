"""Runs of classifiers, which score an image once, and of likelihoods, which return errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.contracts.backbone import Classifier, Likelihood
from bench.discovery.backbones import read_reduction
from bench.discovery.targets import load_target, offers
from bench.engine.asking import Engine
from bench.errors import UserError
from bench.inputs.draws import MAX_DRAWS
from bench.inputs.replaced import TEXT_ONLY
from bench.running.borrowed import find_fit_split
from bench.running.finders import view_of_each_draw, views_identity
from bench.running.question import Resolved, RunQuestion, ScorerKind
from bench.store.fields import without_none
from bench.store.identity import ScoringIdentity

if TYPE_CHECKING:
    from bench.engine.classifying import CheckedClassifier
    from bench.engine.likelihoods import CheckedLikelihood


IMAGES_PER_BATCH = 16


class ClassifierKind(ScorerKind["CheckedClassifier"]):
    """Runs of a classifier, which may be fitted to another split first."""

    one_draw = True

    def scoring(self, question: RunQuestion) -> ScoringIdentity:
        """Return an empty entry, because no error is measured."""
        return ScoringIdentity()

    def checked(self, question: RunQuestion, backbone: Any) -> CheckedClassifier:
        """Return a plugin's classifier with checks of every output."""
        from bench.engine.classifying import CheckedClassifier

        return CheckedClassifier(backbone, question.backbone.label)

    def open_engine(
        self, question: RunQuestion, backbone: CheckedClassifier | None = None
    ) -> Engine:
        """Return the engine; a classifier that learns is fitted first."""
        from bench.engine.classifying import CheckedEnsemble, ClassifyingEngine

        prompts = question.prompts
        backbone = self.backbone_of(question, backbone)
        columns = question.columns()
        if columns.per_column > 1 and offers(backbone.backbone, Classifier.score_sets):
            backbone = CheckedEnsemble(backbone, prompts.texts, columns)
        fit = question.learns_from or find_fit_split(question, question.split)
        return ClassifyingEngine(
            backbone,
            prompts.texts,
            self.problem(question, columns),
            columns,
            question.batch_size or IMAGES_PER_BATCH,
            backbone.fit(fit.images(), fit.texts(prompts.texts)) if fit else None,
        )


CELLS_PER_BATCH = 64


class LikelihoodKind(ScorerKind["CheckedLikelihood"]):
    """Runs of a likelihood."""

    def reduction(self, question: Resolved) -> str:
        """Return how the likelihood's class reduces draws; PluginError if that is invalid."""
        return read_reduction(load_target(question.backbone), question.backbone.label)

    def check(self, question: RunQuestion, scores_texts: bool = False) -> None:
        """Raise UserError for views of a latent, a large seed, or draws that are the same."""
        model = load_target(question.backbone)
        super().check(question, offers(model, Likelihood.prior))
        name, views, seed = question.backbone_name, question.views, question.config.seed
        if seed > (largest := (2**63 - 1) // MAX_DRAWS - 1):
            raise UserError(f"--seed {seed}: must be at most {largest} for a likelihood.")
        if views is not None and views.views.of_latents:
            raise UserError(
                f"--views {question.config.views} are samples of a latent, but backbone {name!r} is"
                " a likelihood, which scores images."
            )
        most = 1 if views is None else views.views.count
        if getattr(model, "draws_are_equal", False) and question.n_draws > most:
            raise UserError(
                f"draws={question.n_draws}: backbone {name!r} has nothing random, so that an image,"
                f" or each of its --views, has a single draw. Use {most}."
            )

    def scoring(self, question: RunQuestion) -> ScoringIdentity:
        """Return the seed, the reduction and the views."""
        return ScoringIdentity(
            noise=f"seed {question.config.seed}",
            reduction=self.reduction(question),
            **without_none(views=views_identity(question.views)),
        )

    def checked(self, question: RunQuestion, backbone: Any) -> CheckedLikelihood:
        """Return a plugin's likelihood with checks of every output."""
        from bench.engine.likelihoods import CheckedLikelihood

        return CheckedLikelihood(backbone, question.backbone.label)

    def open_engine(
        self, question: RunQuestion, backbone: CheckedLikelihood | None = None
    ) -> Engine:
        """Return the engine of the likelihood."""
        from bench.engine.likelihoods import LikelihoodEngine

        prompts = question.prompts
        backbone = self.backbone_of(question, backbone)
        backbone.blind = question.config.control == TEXT_ONLY
        columns = question.columns()
        return LikelihoodEngine(
            backbone,
            prompts.texts,
            self.problem(question, columns),
            columns,
            question.batch_size or CELLS_PER_BATCH,
            None if question.views is None else question.views.views,
            view_of_each_draw(question.views, question.n_draws, question.plan),
        )
