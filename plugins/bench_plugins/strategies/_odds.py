"""The probability that a rival ends ahead of a race's leader, learned from fully swept images.

It is a logistic regression on seven features of the rival at a look, that is, at a test after a
round of draws. Its weights are the parameter `odds` of `race`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench_plugins.strategies._bounds import TINY

N_FEATURES = 7  # the first is constant
MAX_DISTANCE = 50.0  # standard errors; a rival farther behind counts as this far
MAX_LOG_RATIO = 5.0  # of a variance to the pooled variance
MIN_OVERTAKEN = 5  # rivals on either side of the leader that the regression needs


class Evidence(NamedTuple):
    """What a race knows of its surviving prompts at one look. [A] are the prompts still alive.

    `distance` [A] is how far each mean is above the leader's, in standard errors, which have `dof`
    degrees of freedom. Among the `draws` seen, draws of the same timestep count as one; `fraction`
    is their share of all draws. `variance` [A] is that of each prompt's differences from the
    leader, `pooled` the mean variance of all prompts.
    """

    distance: Floats
    dof: float
    draws: int
    fraction: float
    variance: Floats
    pooled: float

    def features(self) -> Floats:
        """Return float64 [A, 7], the features that the weights `odds` belong to.

        In this order: 1, the distance d, log(1 + d), d · log(draws), log(draws), log(1 - fraction),
        and the log ratio of the prompt's variance to the pooled one. Distance and ratio are
        clipped.
        """
        far, constant = np.clip(self.distance, 0, MAX_DISTANCE), np.ones(len(self.distance))
        log_ratio = np.log((self.variance + TINY) / (self.pooled + TINY))
        columns = (
            *(constant, far, np.log1p(far), far * np.log(self.draws)),
            *(constant * np.log(self.draws), constant * np.log1p(-self.fraction)),
            np.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO),
        )
        return np.stack(columns, axis=1)


def fit_odds(features: Sequence[Floats], ahead: Sequence[NDArray[np.bool_]]) -> tuple[float, ...]:
    """Fit a logistic regression of whether a rival ends ahead of the leader; return its 7 weights.

    Per look, `features` are float64 [n, 7] of n rivals, and `ahead` is bool [n]. Raises ValueError
    if fewer than `MIN_OVERTAKEN` rivals ended ahead of the leader, or behind it.
    """
    from sklearn.linear_model import LogisticRegression

    rows, overtaken = np.concatenate(features)[:, 1:], np.concatenate(ahead)
    if min(overtaken.sum(), (~overtaken).sum()) < MIN_OVERTAKEN:
        raise ValueError(
            f"{overtaken.sum()} of {len(overtaken)} rivals ended ahead of the leader; expected"
            f" at least {MIN_OVERTAKEN} ahead and {MIN_OVERTAKEN} behind"
        )
    centre, spread = rows.mean(axis=0), rows.std(axis=0) + TINY
    model = LogisticRegression(max_iter=1000).fit((rows - centre) / spread, overtaken)
    weights = model.coef_[0] / spread
    constant = float(model.intercept_[0] - weights @ centre)
    return tuple(float(f"{weight:.4g}") for weight in (constant, *weights))
