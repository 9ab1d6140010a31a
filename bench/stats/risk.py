"""Bounds with a stated probability: settings that keep a risk, and conformal quantiles."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log, log1p

import numpy as np

from bench.contracts.strategy import Floats

LEVEL = 0.95  # confidence of a bound, over the choice of the images
# Share of decisions that differ, for which a sweep is planned. The safest settings differ on fewer:
# on 0 of 168 images of UC Merced, and of 502 of clothes.
PLANNED_SHARE = 0.005


def images_needed(
    risk: float, disagreements: int = 0, level: float = LEVEL, of: int | None = None
) -> int:
    """Return how many images show a risk with at most so many disagreements; 299 for 1 % and 0.

    Out of a split of `of` images it is fewer, and all of them where no part of the split is enough.
    """
    if of is not None:
        sizes = range(of)
        return bisect_left(sizes, True, key=lambda n: keeps(disagreements, n, risk, level, of))
    n = ceil(log(1 - level) / log1p(-risk))
    while not keeps(disagreements, n, risk, level):
        n += 1
    return n


def keeps(
    disagreements: int, n: int, risk: float, level: float = LEVEL, of: int | None = None
) -> bool:
    """Tell whether `n` images show that at most a share `risk` of all is decided otherwise.

    They do if the one-sided upper limit of Clopper & Pearson (Biometrika 26, 1934) is at most
    `risk`: if the true share were larger, so few disagreements with the full sweep would have a
    probability of at most 1 - level.

    With `of`, the n images were drawn uniformly and without replacement from `of` images, and the
    share is of these. The test is exact: if floor(risk * of) + 1 of them were decided otherwise,
    the hypergeometric probability of so few disagreements would be at most 1 - level.
    """
    from scipy.stats import binom, hypergeom

    if of is None:
        tail = binom.cdf(disagreements, n, risk)
    else:
        tail = hypergeom.cdf(disagreements, of, most_differing(risk, of) + 1, n)
    return bool(tail <= 1 - level + 1e-12)


def most_differing(risk: float, of: int) -> int:
    """Return the largest number of `of` decisions that is a share of at most `risk`."""
    return floor(risk * of + 1e-9)


@dataclass(frozen=True)
class SweepSize:
    """The size of a sweep that calibrates a race of the other images.

    Attributes:
        images: number of images swept.
        allowed: largest number of them that a setting may decide otherwise.
        passes: probability that a setting passes which differs on `PLANNED_SHARE` of the decisions.
        cost: expected cost of all images, the sweep included.
    """

    images: int
    allowed: int
    passes: float
    cost: float


def choose_sweep(of: int, risk: float, full: float, race: float, otherwise: float) -> SweepSize:
    """Return the sweep of least expected cost, out of `of` images.

    More images allow more disagreements. With c allowed, the fewest images that show the risk are
    swept, and the others are raced if at most c differ. The number that differ is random for the
    plan alone: each image with probability `PLANNED_SHARE`.

    Args:
        of: number of images.
        risk: the largest share of decisions that may differ.
        full: cost per image of the full sweep.
        race: expected cost per image of a race.
        otherwise: cost per image of what decides the others where no setting passes.
    """
    from scipy.stats import binom

    sizes: list[SweepSize] = []
    for allowed in range(most_differing(risk, of) + 1):
        images = images_needed(risk, allowed, of=of)
        if sizes and images * full >= min(size.cost for size in sizes):
            break  # the sweep alone costs more, and so does every larger one
        passes = float(binom.cdf(allowed, images, PLANNED_SHARE))
        rest = passes * race + (1 - passes) * otherwise
        sizes.append(SweepSize(images, allowed, passes, images * full + (of - images) * rest))
    return min(sizes, key=lambda size: size.cost)


def upper_limit(disagreements: int, n: int, level: float = LEVEL) -> float:
    """Return the one-sided upper limit of Clopper & Pearson of the share of disagreements."""
    from scipy.stats import beta

    if disagreements >= n:
        return 1.0
    return float(beta.ppf(level, disagreements + 1, n - disagreements))


def passing(
    disagreements: Sequence[int],
    n: int,
    risk: float,
    level: float = LEVEL,
    of: int | None = None,
) -> list[int]:
    """Return the settings that keep a risk, of a sequence that was fixed beforehand.

    Fixed-sequence testing, as in "Learn then Test" (Angelopoulos, Bates, Candès, Jordan & Lei,
    arXiv 2110.01052): the settings are tested in their order, safest first, each at the whole
    level, up to the first that fails. The probability that any of those before it exceeds the risk
    is then 1 - level at most. So the cheapest of them may be chosen by what it cost on the same
    images, and the choice does not weaken the bound. The order must not depend on these images.
    `disagreements` are of each setting, on the same `n` images; `of` as for `keeps`.
    """
    kept = [keeps(count, n, risk, level, of) for count in disagreements]
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
