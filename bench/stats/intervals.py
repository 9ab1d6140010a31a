"""Everything that a run's records say beyond its summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bench.stats.calibration import ReliabilityDiagram, calibration
from bench.stats.items import per_group
from bench.stats.metrics import ClassFigures, confusion, metrics, per_class
from bench.stats.probability import fit_for, probabilities
from bench.stats.repeatability import Repeatability
from bench.stats.skill import Probability, skill
from bench.store.calibrations import Calibrated
from bench.store.decisions import Decided, as_decisions
from bench.store.documents import Items, Manifest
from bench.store.fields import Count, Document
from bench.store.summary import Group, Metrics


class Statistics(Document):
    """What `bench show --statistics --json` prints beside the summary.

    Attributes:
        metrics: of the decided images.
        per_class: the figures of each class, in label order.
        confusion: images, [true][predicted].
        calibration: the accuracy by `confidence`; None: the strategy states none.
        stability: under the key that it has had, the decisions that an independent run would make
            otherwise; None: not known.
        per_group: the accuracy of each group, the worst first, where the samples have groups.
        probability: how good the probabilities of the decisions are, where other images of the
            same question were calibrated.
    """

    metrics: Metrics
    per_class: list[ClassFigures]
    confusion: list[list[Count]]
    calibration: ReliabilityDiagram | None
    stability: Repeatability | None
    per_group: list[Group] | None = None
    probability: Probability | None = None


def statistics(
    decided: Decided,
    classes: Sequence[str],
    items: Items | None = None,
    probable: Probability | None = None,
    repeatable: Repeatability | None = None,
) -> Statistics:
    """Return what decided images say.

    Args:
        decided: the records, or columns that were read with `top`.
        classes: the class names in label order.
        items: of a run of items, what they are.
        probable: from `probability`.
        repeatable: decisions that an independent run would make otherwise, where that is known.
    """
    decided = as_decisions(decided)
    groups = per_group(decided)
    return Statistics(
        metrics=metrics(decided, len(classes), items),
        per_class=per_class(decided, classes),
        confusion=confusion(decided, len(classes)).tolist(),
        calibration=calibration(decided),
        stability=repeatable,
        **({"per_group": groups} if groups else {}),
        **({"probability": probable} if probable else {}),
    )


def probability(
    decided: Decided, manifest: Manifest, calibrated: Iterable[Calibrated]
) -> Probability | None:
    """Return how good the probabilities of a run's decisions are.

    None where no calibration is of the run's question and strategy and of other images, or no
    decision has a probability.

    Args:
        decided: the run's decisions.
        manifest: its manifest.
        calibrated: the calibrations that there are.
    """
    if (found := fit_for(manifest, calibrated)) is None:
        return None
    decided = as_decisions(decided)
    calibration, fit = found
    values = probabilities(fit, decided)
    known = np.isfinite(values)
    if not known.any():
        return None
    return skill(values[known], decided.correct[known], calibration.manifest.run_id, fit.images)
