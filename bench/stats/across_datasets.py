"""Methods compared across datasets: mean ranks, and effective robustness under a shift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench.stats.paired import ALPHA
from bench.store.fields import Amount, Document, Number, Positive, Share

MIN_DATASETS = 10  # the test has little power with fewer
MIN_METHODS = 3  # other methods, for a line through them
EDGE = 1e-3  # an accuracy of 0 or 1 has no logit


class MeanRanks(Document):
    """Mean ranks of methods by accuracy over datasets (Demšar, JMLR 7, 2006)."""

    methods: list[str]  # names of the methods, best first
    ranks: list[Amount]  # mean rank of each method over the datasets
    datasets: Positive  # number of datasets
    friedman_p: Share  # p of Friedman's test that all methods are equal
    critical_difference: Amount  # mean ranks that lie closer do not differ (Nemenyi, 5 %)

    @property
    def cliques(self) -> list[tuple[int, int]]:
        """First and last place of each group whose ranks do not differ significantly."""
        groups: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            close = [p for p, r in enumerate(self.ranks) if r - rank <= self.critical_difference]
            last = max(p for p in close if p >= first)
            if last > first and not any(b >= last for _, b in groups):
                groups.append((first, last))
        return groups


def mean_ranks(methods: Sequence[str], accuracy: NDArray[np.float64]) -> MeanRanks | None:
    """Return the methods' mean ranks; None: there are too few datasets or methods.

    `accuracy` is float64 [datasets, methods].
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


class Robustness(Document):
    """Effective robustness of one method under one shift.

    Taori et al. (NeurIPS 2020): over many models, the logit of the accuracy under a shift is linear
    in the logit of the usual accuracy. What exceeds the line of the others is effective robustness.
    """

    method: str  # name of the method in tables
    usual: str  # dataset before the shift
    shifted: str  # dataset after the shift
    accuracy_usual: Share  # accuracy before the shift
    accuracy_shifted: Share  # accuracy after the shift
    expected: Share | None  # accuracy by the line through the others; None: there are too few
    effective: Number | None  # accuracy after the shift less the expected one


def robustness(
    methods: Sequence[str], usual: str, shifted: str, before: Floats, after: Floats
) -> list[Robustness]:
    """Return the effective robustness of each method, from accuracies before and after a shift."""
    from scipy.special import expit, logit

    x, y = (logit(np.clip(share, EDGE, 1 - EDGE)) for share in (before, after))
    results = []
    for place, method in enumerate(methods):
        others = np.arange(len(methods)) != place
        expected: float | None = None
        if others.sum() >= MIN_METHODS and np.ptp(x[others]) > 0:
            slope, offset = np.polyfit(x[others], y[others], 1)
            expected = float(expit(slope * x[place] + offset))
        results.append(
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
    return results
