"""Mean ranks over many datasets, and how far apart they must be (Demšar, JMLR 7, 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.stats.paired import ALPHA
from bench.store.fields import Amount, Document, Positive, Share

MIN_DATASETS = 10  # datasets; with fewer the test finds next to nothing


class MeanRanks(Document):
    """Methods ranked by accuracy within each dataset, and the means of their ranks."""

    methods: list[str]
    """Best first."""
    ranks: list[Amount]
    """Of each method, over the datasets."""
    datasets: Positive
    """How many."""
    friedman_p: Share
    """That all methods are alike."""
    critical_difference: Amount
    """Mean ranks that lie closer do not differ significantly (Nemenyi, 5 %)."""

    @property
    def cliques(self) -> list[tuple[int, int]]:
        """Return the first and the last place of each group whose ranks do not differ."""
        found: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            close = [p for p, r in enumerate(self.ranks) if r - rank <= self.critical_difference]
            last = max(p for p in close if p >= first)
            if last > first and not any(b >= last for _, b in found):
                found.append((first, last))
        return found


def mean_ranks(methods: Sequence[str], accuracy: NDArray[np.float64]) -> MeanRanks | None:
    """Return the methods' mean ranks; None: there are too few datasets or methods.

    Args:
        methods: their names.
        accuracy: float64 [datasets, methods].
    """
    datasets, k = accuracy.shape
    if datasets < MIN_DATASETS or k < 3:
        return None
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    means = rankdata(-accuracy, axis=1).mean(axis=0)
    order = np.argsort(means, kind="stable")
    q = float(studentized_range.isf(ALPHA, k, np.inf)) / np.sqrt(2)
    alike = bool((accuracy == accuracy[:, :1]).all())
    p = 1.0 if alike else float(friedmanchisquare(*accuracy.T).pvalue)
    return MeanRanks(
        methods=[methods[place] for place in order],
        ranks=means[order].tolist(),
        datasets=datasets,
        friedman_p=p,
        critical_difference=float(q * np.sqrt(k * (k + 1) / (6 * datasets))),
    )
