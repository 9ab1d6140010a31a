"""Recalls of items: whether a right answer is among the first places.

The gallery of answers is fixed: intervals are over queries, and those about the same image are
resampled together.
"""

from typing import Any, ClassVar

import numpy as np

from bench.contracts.metric import Metric, MetricInput
from bench.contracts.strategy import Floats


class _Recall(Metric):
    """Share of items with a right answer in the first places, of more answers than places."""

    places: int

    def image_values(self, data: MetricInput) -> Floats:
        """Return 1 for an item with a right answer in the first places, else 0.

        Raises ValueError if an item has no more answers than places, so that any answer is a hit,
        or an answer was eliminated that may be in these places or behind them.
        """
        fewest = len(data.classes) if data.answers is None else int(np.min(data.answers))
        if fewest <= self.places:
            raise ValueError(f"an item has {fewest} answers, not more than {self.places}")
        last = np.asarray(data.ranks)
        first = last if data.first_ranks is None else data.first_ranks
        if unknown := int(((first <= self.places) & (last > self.places)).sum()):
            raise ValueError(
                f"the strategy eliminated the right answer of {unknown} items before its place was"
                " known; `full` and `uniform` rank all answers"
            )
        return ((last > 0) & (last <= self.places)).astype(np.float64)


class RecallAt1(_Recall):
    """Share of items with a right answer first.

    >>> from bench.contracts.metric import MetricInput
    >>> names = tuple(f"text {number}" for number in range(20))
    >>> labels = np.array([0, 1, 2, 7])
    >>> RecallAt1().value(MetricInput(names, labels, labels, ranks=np.array([1, 2, 6, 11])))
    0.25
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "recall_at_1",
        "words": "recall@1",
        "needs": ("ranks",),
        "mean_over_images": True,
    }
    places = 1


class RecallAt5(_Recall):
    """Share of items with a right answer among the first five.

    >>> from bench.contracts.metric import MetricInput
    >>> names = tuple(f"text {number}" for number in range(20))
    >>> labels = np.array([0, 1, 2, 7])
    >>> RecallAt5().value(MetricInput(names, labels, labels, ranks=np.array([1, 2, 6, 11])))
    0.5
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "recall_at_5",
        "words": "recall@5",
        "needs": ("ranks",),
        "mean_over_images": True,
    }
    places = 5


class RecallAt10(_Recall):
    """Share of items with a right answer among the first ten.

    >>> from bench.contracts.metric import MetricInput
    >>> names = tuple(f"text {number}" for number in range(20))
    >>> labels = np.array([0, 1, 2, 7])
    >>> RecallAt10().value(MetricInput(names, labels, labels, ranks=np.array([1, 2, 6, 11])))
    0.75
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "recall_at_10",
        "words": "recall@10",
        "needs": ("ranks",),
        "mean_over_images": True,
    }
    places = 10
