"""Everything that a run's records say beyond its summary."""

from __future__ import annotations

from collections.abc import Sequence

from bench.stats.calibration import Calibration, calibration
from bench.stats.metrics import ClassFigures, confusion, metrics, per_class
from bench.stats.stability import Stability, stability
from bench.store.decisions import Decided, as_decisions
from bench.store.documents import Count, Document, Metrics


class Statistics(Document):
    """What `bench show --statistics --json` prints beside the summary.

    Attributes:
        metrics: of the decided images.
        per_class: the figures of each class, in label order.
        confusion: images, [true][predicted].
        calibration: the accuracy by stability; None: the strategy claims none.
        stability: what another seed would change; None: no margin has a standard error.
    """

    metrics: Metrics
    per_class: list[ClassFigures]
    confusion: list[list[Count]]
    calibration: Calibration | None
    stability: Stability | None


def statistics(decided: Decided, classes: Sequence[str]) -> Statistics:
    """Return what decided images say.

    Args:
        decided: the records, or columns that were read with `top`.
        classes: the class names in label order.
    """
    decided = as_decisions(decided)
    return Statistics(
        metrics=metrics(decided, len(classes)),
        per_class=per_class(decided, classes),
        confusion=confusion(decided, len(classes)).tolist(),
        calibration=calibration(decided),
        stability=stability(decided),
    )
