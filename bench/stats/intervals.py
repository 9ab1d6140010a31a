"""Everything that a run's records say beyond its summary."""

from __future__ import annotations

from collections.abc import Sequence

from bench.stats.calibration import Calibration, calibration
from bench.stats.items import per_group
from bench.stats.metrics import ClassFigures, confusion, metrics, per_class
from bench.stats.stability import Stability, stability
from bench.store.decisions import Decided, as_decisions
from bench.store.documents import Group, Items, Metrics
from bench.store.fields import Count, Document


class Statistics(Document):
    """What `bench show --statistics --json` prints beside the summary.

    Attributes:
        metrics: of the decided images.
        per_class: the figures of each class, in label order.
        confusion: images, [true][predicted].
        calibration: the accuracy by stability; None: the strategy claims none.
        stability: what another seed would change; None: no margin has a standard error.
        per_group: the accuracy of each group, the worst first, where the samples have groups.
    """

    metrics: Metrics
    per_class: list[ClassFigures]
    confusion: list[list[Count]]
    calibration: Calibration | None
    stability: Stability | None
    per_group: list[Group] | None = None


def statistics(decided: Decided, classes: Sequence[str], items: Items | None = None) -> Statistics:
    """Return what decided images say.

    Args:
        decided: the records, or columns that were read with `top`.
        classes: the class names in label order.
        items: of a run of items, what they are.
    """
    decided = as_decisions(decided)
    groups = per_group(decided)
    return Statistics(
        metrics=metrics(decided, len(classes), items),
        per_class=per_class(decided, classes),
        confusion=confusion(decided, len(classes)).tolist(),
        calibration=calibration(decided),
        stability=stability(decided),
        **({"per_group": groups} if groups else {}),
    )
