"""How far a prompt may lie above the best first-order score before it is left out. numpy only."""

from __future__ import annotations

from math import ceil, inf

import numpy as np

from bench.contracts.strategy import Floats


def distances(scores: Floats) -> Floats:
    """Return float64 [P]: how far each score lies above the lowest, in standard deviations of all.

    The unit makes images and draws of unlike contrast comparable. Equal scores are all at 0.

    Args:
        scores: float64 [P], first-order scores; lower is better.
    """
    above, spread = scores - scores.min(), scores.std()
    return np.asarray(above / spread if spread > 0 else np.zeros_like(above))


def conformal_quantile(values: Floats, risk: float) -> float:
    """Return what a new value exceeds with probability `risk` at most, if exchangeable with these.

    The ceil((n + 1)(1 - risk))-th smallest of n values, as in split conformal prediction (Vovk,
    Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005; Lei et al., JASA 113,
    2018); infinite where n is too small to say, that is below 1 / risk - 1. The probability is
    over the draw of these values as well as of the new one.

    Args:
        values: float64 [n].
        risk: between 0 and 1.
    """
    rank = ceil((len(values) + 1) * (1 - risk))
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else inf
