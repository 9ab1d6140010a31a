"""Effective robustness: the accuracy on shifted data, beyond what that on the usual data foretells.

Taori et al. (NeurIPS 2020): over many models, the logit of the accuracy under a shift is a straight
line in the logit of the usual accuracy. What a model has above the line of the others is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.store.fields import Document, Number, Share

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
