"""Runs of classifiers, which score an image once, and of likelihoods, which return errors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.contracts.backbone import Classifier, Likelihood
from bench.contracts.decision import MEAN, Engine
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.discovery.backbones import read_reduction
from bench.discovery.targets import load_target, offers
from bench.errors import UserError
from bench.inputs.draws import MAX_DRAWS
from bench.inputs.replaced import TEXT_ONLY
from bench.inputs.templates import Columns
from bench.running.parts.measure import view_of_each_draw
from bench.running.prepared import Prepared
from bench.running.preparing.others import find_fit_split
from bench.running.resolve import Resolved
from bench.running.scorers.draws import views_identity
from bench.running.scorers.kind import ScorerKind, chosen_batch_size
from bench.store.fields import without_none
from bench.store.identity import ScoringIdentity

if TYPE_CHECKING:
    from bench.engine.classifying import CheckedClassifier
    from bench.engine.likelihoods import CheckedLikelihood
    from bench.running.scorers.kind import CheckedBackbone


IMAGES_PER_BATCH = 16


class ClassifierKind(ScorerKind):
    """Runs of a classifier, which may be fitted to another split first."""

    one_draw = True

    def problem(
        self, prepared: Prepared, columns: Columns, levels: Levels | None = None
    ) -> Problem:
        """Return the problem of an image on its only draw, which has no noise level."""
        return replace(super().problem(prepared, columns), timesteps=np.zeros(1, np.int64))

    def scoring(self, prepared: Prepared) -> ScoringIdentity:
        """Return an empty entry, because no error is measured."""
        return ScoringIdentity()

    def checked(self, resolved: Resolved, backbone: Any) -> CheckedClassifier:
        """Return a plugin's classifier with checks of every output."""
        from bench.engine.classifying import CheckedClassifier

        return CheckedClassifier(backbone, resolved.backbone.label)

    def open_engine(self, prepared: Prepared, backbone: CheckedBackbone | None = None) -> Engine:
        """Return the engine; a classifier that learns is fitted first."""
        from bench.engine.classifying import CheckedClassifier, CheckedEnsemble, ClassifyingEngine

        prompts = prepared.prompts
        backbone = self.backbone_of(prepared, backbone)
        assert isinstance(backbone, CheckedClassifier)
        columns = self.columns(prepared, np.array(prompts.class_of_prompt))
        if columns.per_column > 1 and offers(backbone.backbone, Classifier.score_sets):
            backbone = CheckedEnsemble(backbone, prompts.texts, columns)
        fit = prepared.learns_from or find_fit_split(prepared, prepared.split)
        return ClassifyingEngine(
            backbone,
            prompts.texts,
            self.problem(prepared, columns),
            columns,
            chosen_batch_size(prepared) or IMAGES_PER_BATCH,
            backbone.fit(fit.images(), fit.texts(prompts.texts)) if fit else None,
        )


CELLS_PER_BATCH = 64


class LikelihoodKind(ScorerKind):
    """Runs of a likelihood."""

    def problem(
        self, prepared: Prepared, columns: Columns, levels: Levels | None = None
    ) -> Problem:
        """Return the problem of an image, with the reduction of draws to a score."""
        problem = super().problem(prepared, columns)
        return replace(problem, reduction=reduction_of(prepared))

    def check(self, prepared: Prepared, scores_texts: bool = False) -> None:
        """Raise UserError for views of a latent, a large seed or a strategy that does not fit."""
        super().check(prepared, offers(load_target(prepared.backbone), Likelihood.prior))
        name, views, seed = prepared.backbone_name, prepared.views, prepared.config.seed
        if seed > (largest := (2**63 - 1) // MAX_DRAWS - 1):
            raise UserError(f"--seed {seed}: must be at most {largest} for a likelihood.")
        reduction = reduction_of(prepared)
        if reduction != MEAN and not prepared.strategy.same_draws:
            raise UserError(
                f"Backbone {name!r} combines draws by {reduction}, but strategy"
                f" {prepared.decider.spec.name!r} decides by means over draws. Use --strategy full"
                " or uniform."
            )
        if views is not None and views.views.of_latents:
            raise UserError(
                f"--views {prepared.config.views} are samples of a latent, but backbone {name!r} is"
                " a likelihood, which scores images."
            )

    def scoring(self, prepared: Prepared) -> ScoringIdentity:
        """Return the seed, the reduction and the views."""
        return ScoringIdentity(
            noise=f"seed {prepared.config.seed}",
            reduction=reduction_of(prepared),
            **without_none(views=views_identity(prepared.views)),
        )

    def checked(self, resolved: Resolved, backbone: Any) -> CheckedLikelihood:
        """Return a plugin's likelihood with checks of every output."""
        from bench.engine.likelihoods import CheckedLikelihood

        return CheckedLikelihood(backbone, resolved.backbone.label)

    def open_engine(self, prepared: Prepared, backbone: CheckedBackbone | None = None) -> Engine:
        """Return the engine of the likelihood."""
        from bench.engine.likelihoods import CheckedLikelihood, LikelihoodEngine

        prompts = prepared.prompts
        backbone = self.backbone_of(prepared, backbone)
        assert isinstance(backbone, CheckedLikelihood)
        backbone.blind = prepared.config.control == TEXT_ONLY
        columns = self.columns(prepared, np.array(prompts.class_of_prompt))
        return LikelihoodEngine(
            backbone,
            prompts.texts,
            self.problem(prepared, columns),
            columns,
            chosen_batch_size(prepared) or CELLS_PER_BATCH,
            None if prepared.views is None else prepared.views.views,
            view_of_each_draw(prepared.views, self.draws(prepared), prepared.plan),
        )


def reduction_of(resolved: Resolved) -> str:
    """Return how a likelihood's class reduces draws; raises PluginError if it is invalid."""
    return read_reduction(load_target(resolved.backbone), resolved.backbone.label)
