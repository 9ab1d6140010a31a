"""Bounds with a stated probability: settings that keep a risk, and conformal quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, log, log1p

import numpy as np

from bench.contracts.strategy import Floats

LEVEL = 0.95  # confidence of a bound, over the choice of the images


def images_needed(risk: float, disagreements: int = 0, level: float = LEVEL) -> int:
    """Return how many images show a risk with at most so many disagreements; 299 for 1 % and 0."""
    n = ceil(log(1 - level) / log1p(-risk))
    while not keeps(disagreements, n, risk, level):
        n += 1
    return n


def keeps(disagreements: int, n: int, risk: float, level: float = LEVEL) -> bool:
    """Tell whether `n` images show that at most a share `risk` of all is decided otherwise.

    They do if the one-sided upper limit of Clopper & Pearson (Biometrika 26, 1934) is at most
    `risk`: if the true share were larger, so few disagreements with the full sweep would have a
    probability of at most 1 - level.
    """
    from scipy.stats import binom

    return bool(binom.cdf(disagreements, n, risk) <= 1 - level + 1e-12)


def upper_limit(disagreements: int, n: int, level: float = LEVEL) -> float:
    """Return the one-sided upper limit of Clopper & Pearson of the share of disagreements."""
    from scipy.stats import beta

    if disagreements >= n:
        return 1.0
    return float(beta.ppf(level, disagreements + 1, n - disagreements))


def passing(disagreements: Sequence[int], n: int, risk: float, level: float = LEVEL) -> list[int]:
    """Return the settings that keep a risk, of a sequence that was fixed beforehand.

    Fixed-sequence testing, as in "Learn then Test" (Angelopoulos, Bates, Candès, Jordan & Lei,
    arXiv 2110.01052): the settings are tested in their order, safest first, each at the whole
    level, up to the first that fails. The probability that any of those before it exceeds the risk
    is then 1 - level at most. So the cheapest of them may be chosen by what it cost on the same
    images, and the choice does not weaken the bound. The order must not depend on these images.
    `disagreements` are of each setting, on the same `n` images.
    """
    kept = [keeps(count, n, risk, level) for count in disagreements]
    return list(range([*kept, False].index(False)))


def distances(scores: Floats) -> Floats:
    """Return the distance of each score from the lowest, in standard deviations, float64 [P].

    The unit makes images and draws of different contrast comparable. Equal scores are all at 0.
    Scores are first-order scores, float64 [P]; lower is better.
    """
    above, spread = scores - scores.min(), scores.std()
    return np.asarray(above / spread if spread > 0 else np.zeros_like(above))


def conformal_quantile(values: Floats, risk: float) -> float:
    """Return the value that a new, exchangeable one exceeds with probability `risk` at most.

    The ceil((n + 1)(1 - risk))-th smallest of n values, as in split conformal prediction (Vovk,
    Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005; Lei et al., JASA 113,
    2018); infinite where n is too small, that is below 1 / risk - 1. The probability is over
    the draw of these values, float64 [n], as well as of the new one.
    """
    rank = ceil((len(values) + 1) * (1 - risk))
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else inf
