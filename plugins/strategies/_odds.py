"""How likely a rival ends ahead of a race's leader, learned from images with every error known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench_plugins.strategies._bounds import TINY

SIGNS = 7  # weights, the first of them constant
FARTHEST = 50.0  # standard errors; a rival farther away counts as this far
MAX_SPREAD = 5.0  # of the logarithm of a variance
MIN_OVERTAKEN = 5  # rivals that ended ahead, for weights to be learned


class Evidence(NamedTuple):
    """What a race has seen of its prompts.

    Attributes:
        distance: float64 [A], of each mean from the leader's, in standard errors.
        freedom: degrees of freedom of these errors.
        draws: draws seen.
        share: share of all draws that they are.
        variance: float64 [A], of each prompt's differences from the leader.
        pooled: mean variance of all prompts.
    """

    distance: Floats
    freedom: float
    draws: int
    share: float
    variance: Floats
    pooled: float

    def signs(self) -> Floats:
        """Return float64 [A, 7], what the weights of `odds` are about."""
        far, constant = np.clip(self.distance, 0, FARTHEST), np.ones(len(self.distance))
        spread = np.log((self.variance + TINY) / (self.pooled + TINY))
        columns = (
            *(constant, far, np.log1p(far), far * np.log(self.draws)),
            *(constant * np.log(self.draws), constant * np.log1p(-self.share)),
            np.clip(spread, -MAX_SPREAD, MAX_SPREAD),
        )
        return np.stack(columns, axis=1)


def fit_odds(signs: Sequence[Floats], ahead: Sequence[NDArray[np.bool_]]) -> tuple[float, ...]:
    """Return the weights of a logistic regression of "this rival ends ahead of the leader".

    Args:
        signs: float64 [n, 7] per look.
        ahead: bool [n] per look.

    Raises:
        ValueError: too few rivals ended ahead for it to be learned.
    """
    from sklearn.linear_model import LogisticRegression

    rows, overtaken = np.concatenate(signs)[:, 1:], np.concatenate(ahead)
    if min(overtaken.sum(), (~overtaken).sum()) < MIN_OVERTAKEN:
        raise ValueError(
            f"{overtaken.sum()} of {len(overtaken)} rivals ended ahead of the leader;"
            f" {MIN_OVERTAKEN} or more are needed"
        )
    centre, spread = rows.mean(axis=0), rows.std(axis=0) + TINY
    model = LogisticRegression(max_iter=1000).fit((rows - centre) / spread, overtaken)
    weights = model.coef_[0] / spread
    constant = float(model.intercept_[0] - weights @ centre)
    return tuple(float(f"{weight:.4g}") for weight in (constant, *weights))
