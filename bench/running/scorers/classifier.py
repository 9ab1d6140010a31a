"""Classifiers score an image once, directly, without draws."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.contracts.backbone import Classifier
from bench.contracts.decision import Engine
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.discovery.targets import offers
from bench.inputs.estimand import Weighting
from bench.inputs.templates import Columns
from bench.running.prepared import Prepared
from bench.running.preparing.learned import find_fit_split
from bench.running.resolve import Resolved
from bench.running.scorers.kind import ScorerKind, chosen_batch_size
from bench.store.identity import ScoringIdentity

if TYPE_CHECKING:
    from bench.engine.classifying import CheckedClassifier
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

    def scoring(self, resolved: Resolved, weighting: Weighting) -> ScoringIdentity:
        """Return an empty entry: no error is measured."""
        return ScoringIdentity()

    def checked(self, resolved: Resolved, backbone: Any) -> CheckedClassifier:
        """Return a plugin's classifier with checks of every reply."""
        from bench.engine.classifying import CheckedClassifier

        return CheckedClassifier(backbone, resolved.backbone.label)

    def open_engine(self, prepared: Prepared, backbone: CheckedBackbone | None = None) -> Engine:
        """Return the engine; a classifier that learns is fitted first."""
        from bench.engine.classifying import CheckedClassifier, CheckedEnsemble, ClassifyingEngine

        resolved, prompts = prepared.resolved, prepared.prompts
        backbone = backbone or self.make(prepared)
        assert isinstance(backbone, CheckedClassifier)
        columns = self.columns(resolved, np.array(prompts.class_of_prompt))
        if columns.per_column > 1 and offers(backbone.backbone, Classifier.score_sets):
            backbone = CheckedEnsemble(backbone, prompts.texts, columns)
        fit = prepared.learns_from or find_fit_split(resolved, prepared.split)
        return ClassifyingEngine(
            backbone,
            prompts.texts,
            self.problem(prepared, columns),
            columns,
            chosen_batch_size(resolved) or IMAGES_PER_BATCH,
            backbone.fit(fit.images(), fit.texts(prompts.texts)) if fit else None,
        )
