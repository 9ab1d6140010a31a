"""Methods compared across datasets: mean ranks, and effective robustness under a shift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.stats.paired import ALPHA
from bench.store.fields import Amount, Document, Number, Positive, Share

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


MIN_METHODS = 3  # other methods that a line is drawn through
EDGE = 1e-3  # an accuracy of 0 or 1 has no logit

Floats = NDArray[np.float64]


class Robustness(Document):
    """One method under one shift."""

    method: str
    """As tables call it."""
    usual: str
    """The dataset that is shifted."""
    shifted: str
    """Its shift."""
    accuracy_usual: Share
    """Without the shift."""
    accuracy_shifted: Share
    """Under it."""
    expected: Share | None
    """By the line through the other methods; None: there are too few of them."""
    effective: Number | None
    """The accuracy under the shift less the expected one."""


def robustness(
    methods: Sequence[str], usual: str, shifted: str, before: Floats, after: Floats
) -> list[Robustness]:
    """Return the effective robustness of each method.

    Args:
        methods: their names.
        usual: the dataset that is shifted.
        shifted: the dataset after the shift.
        before: [methods], the accuracy on the usual data.
        after: [methods], the accuracy on the shifted data.
    """
    from scipy.special import expit, logit

    x, y = (logit(np.clip(one, EDGE, 1 - EDGE)) for one in (before, after))
    found = []
    for place, method in enumerate(methods):
        others = np.arange(len(methods)) != place
        expected: float | None = None
        if others.sum() >= MIN_METHODS and np.ptp(x[others]) > 0:
            slope, offset = np.polyfit(x[others], y[others], 1)
            expected = float(expit(slope * x[place] + offset))
        found.append(
            Robustness(
                method=method,
                usual=usual,
                shifted=shifted,
                accuracy_usual=float(before[place]),
                accuracy_shifted=float(after[place]),
                expected=expected,
                effective=None if expected is None else float(after[place]) - expected,
            )
        )
    return found
