"""Number of images that a difference between two runs needs, and what n images could have shown.

Two runs on the same images differ on few of them: the discordance. McNemar's exact test looks at
those alone, so that a difference between runs that mostly agree needs far fewer images than one
between two sets of images.
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, sqrt

import numpy as np

from bench.contracts.strategy import Ints
from bench.errors import UserError
from bench.stats.paired import ALPHA, mcnemar
from bench.stats.sequential import simulated_stops
from bench.store.fields import Document, Positive, Share

DEFAULT_POWER = 0.8  # usual in the planning of studies
MAX_IMAGES = 100_000_000
SIMULATED = 2000  # studies
COUNT_TAIL = 8.0  # standard deviations; larger deviations of the discordant count are ignored


class Needed(Document):
    """Number of images that show a difference with a given power."""

    power: Share  # probability that the test finds the difference
    paired: Positive | None  # number of images, both runs on the same; None: more than there are
    unpaired: Positive | None  # number of images of each run, both on images of their own


class Sequential(Document):
    """Number of images after which a comparison that may stop at any image is decided."""

    mean: Positive  # mean of simulated comparisons
    of_90_percent: Positive  # so many decide 90 % of them


class Power(Document):
    """What a comparison of two runs can show."""

    difference: float  # difference of the accuracies
    discordance: Share  # share of images that exactly one run has right
    accuracy: Share | None = None  # accuracy of the first run; None: 0.5 for unpaired images
    needed: list[Needed]  # numbers of images for several powers
    n: Positive | None = None  # number of images available
    power: Share | None = None  # probability that n images show this difference
    simulated: Share | None = None  # the same probability in 2,000 simulated studies of n images
    smallest: float | None = None  # smallest difference that n images show with a power of 80 %
    sequential: Sequential | None = None  # None: it takes more images than any dataset has


def plan_power(
    difference: float,
    discordance: float,
    n: int | None = None,
    accuracy: float | None = None,
) -> Power:
    """Return how many images a difference needs, and what n images can show.

    `difference` is of the accuracies, of any sign; `discordance` is the share of images that
    exactly one run has right; `accuracy` is of the first run, and None is the worst case.
    UserError: no two runs can have these values.
    """
    difference = abs(difference)
    check(difference, discordance)
    alone = (discordance - difference) / 2  # share that only the worse run has right
    if accuracy is not None and not alone - 1e-9 <= accuracy <= 1 - alone + 1e-9:
        raise UserError(
            f"--accuracy {accuracy:g}: with these shares a run is right on {alone:.4g} to"
            f" {1 - alone:.4g} of the images."
        )
    of_n: dict[str, float | None] = {}
    if n is not None:
        of_n = {
            "power": exact_power(n, difference, discordance),
            "simulated": simulated_power(n, difference, discordance),
            "smallest": smallest_difference(n, discordance),
        }
    return Power(
        difference=difference,
        discordance=discordance,
        accuracy=accuracy,
        needed=[
            Needed(
                power=power,
                paired=images_needed(difference, discordance, power),
                unpaired=unpaired_images(difference, accuracy, power),
            )
            for power in (0.5, DEFAULT_POWER, 0.9, 0.95)
        ],
        n=n,
        sequential=sequential_images(difference, discordance),
        **of_n,
    )


def sequential_images(difference: float, discordance: float) -> Sequential | None:
    """Return after how many images `bench run --until "differs from RUN"` ends; simulated."""
    fixed = images_needed(difference, discordance)
    if fixed is None or fixed > MAX_IMAGES // 10:
        return None
    stops = simulated_stops(difference, discordance, 10 * max(fixed, 10))
    stops = np.minimum(stops, 10.0 * max(fixed, 10))
    return Sequential(mean=round(stops.mean()), of_90_percent=round(np.quantile(stops, 0.9)))


def check(difference: float, discordance: float) -> None:
    """Raise a UserError unless both are shares, and the difference at most the discordance."""
    if not 0 < discordance <= 1:
        raise UserError(
            f"--discordance {discordance:g}: expected a share above 0, such as 0.1 where one run"
            " alone is right on a tenth of the images."
        )
    if not 0 < difference <= discordance:
        raise UserError(
            f"--difference {difference:g}: it is above 0 and at most the discordance,"
            f" {discordance:g}: accuracies differ by wins less losses, and both together are the"
            " discordance."
        )


def exact_power(n: int, difference: float, discordance: float) -> float:
    """Return the probability that McNemar's exact test on n images finds the difference (p < 0.05).

    Exact: a sum over the number of discordant images and their winners. A significant difference
    in the wrong direction does not count.
    """
    from scipy.stats import binom

    spread = COUNT_TAIL * sqrt(n * discordance * (1 - discordance)) + 1
    low, high = max(0, int(n * discordance - spread)), min(n, ceil(n * discordance + spread))
    counts = np.arange(low, high + 1)
    wins = (discordance + difference) / (2 * discordance)
    significant = binom.cdf(most_losses(counts), counts, 1 - wins)
    return float(min(1.0, (binom.pmf(counts, n, discordance) * significant).sum()))


def most_losses(discordant: Ints) -> Ints:
    """Return the largest significant losses of each number of discordant images; -1: none."""
    from scipy.special import bdtr
    from scipy.stats import binom

    trials = np.maximum(discordant, 1)
    losses = np.asarray(binom.ppf(ALPHA / 2, trials, 0.5)).astype(np.int64)
    return np.where(2 * bdtr(losses, trials, 0.5) < ALPHA, losses, losses - 1)


def images_needed(
    difference: float, discordance: float, power: float = DEFAULT_POWER
) -> int | None:
    """Return the number of images that show the difference with this power, on the same images.

    The exact power is not quite monotone in the number of images: the result is exact to within
    these small steps. None: more images than any dataset has.
    """

    def power_of(n: int) -> float:
        return exact_power(n, difference, discordance)

    high = 2
    while power_of(high) < power:
        high *= 2
        if high > MAX_IMAGES:
            return None
    low = max(high // 2, 1)
    return low + 1 + bisect_left(range(low + 1, high), power, key=power_of)


def smallest_difference(n: int, discordance: float) -> float | None:
    """Return the smallest difference that n images show with a power of 80 %; None: none."""
    from scipy.optimize import brentq

    def excess(difference: float) -> float:
        return exact_power(n, difference, discordance) - DEFAULT_POWER

    return None if excess(discordance) < 0 else float(brentq(excess, 0.0, discordance))


def unpaired_images(difference: float, accuracy: float | None, power: float) -> int | None:
    """Return the number of images of each of two runs on images of their own.

    For Fisher's exact test, by the normal approximation of two shares with a correction for
    continuity (Fleiss, Tytun & Ury, Biometrics 36, 1980); slightly too large where one run is
    nearly always right. Without an accuracy, at the largest variance.
    """
    from scipy.stats import norm

    a = 0.5 - difference / 2 if accuracy is None else accuracy
    b = min(1.0, max(0.0, a + difference if a + difference <= 1 else a - difference))
    mean = (a + b) / 2
    of_null = float(norm.isf(ALPHA / 2)) * sqrt(2 * mean * (1 - mean))
    of_alternative = float(norm.isf(1 - power)) * sqrt(a * (1 - a) + b * (1 - b))
    plain = ((of_null + of_alternative) / difference) ** 2
    images = ceil(plain / 4 * (1 + sqrt(1 + 4 / (plain * difference))) ** 2)
    return max(1, images) if images <= MAX_IMAGES else None


def simulated_power(
    n: int, difference: float, discordance: float, studies: int = SIMULATED
) -> float:
    """Return the share of simulated studies of n images that find the difference."""
    rng = np.random.default_rng(0)
    wins = (discordance + difference) / (2 * discordance)
    discordant = rng.binomial(n, discordance, size=studies)
    won = rng.binomial(discordant, wins)
    lost = discordant - won
    return float(((mcnemar(won, lost) < ALPHA) & (won > lost)).mean())
