"""Everything that a run's records say beyond its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.stats.calibration import calibration
from bench.stats.metrics import confusion, metrics, per_class
from bench.stats.stability import stability
from bench.store.decisions import Decided, as_decisions


def statistics(decided: Decided, classes: Sequence[str]) -> dict[str, Any]:
    """Return metrics, per_class, confusion, calibration and stability of decided images.

    Args:
        decided: the records, or columns that were read with `top`.
        classes: the class names in label order.

    Returns:
        metrics, see `bench.stats.metrics.metrics`; per_class, a list; confusion, a list of
        rows [true][predicted]; calibration and stability, None where the strategy does not say.
    """
    decided = as_decisions(decided)
    return {
        "metrics": metrics(decided, len(classes)).plain(),
        "per_class": per_class(decided, classes),
        "confusion": confusion(decided, len(classes)).tolist(),
        "calibration": calibration(decided),
        "stability": stability(decided),
    }
