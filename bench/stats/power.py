"""How many images a difference between two runs needs, and what n images could have shown.

Two runs on the same images differ on few of them: the discordance. McNemar's exact test looks at
those alone, so that a difference between runs that mostly agree needs far fewer images than one
between two sets of images.
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.stats.paired import ALPHA, mcnemar
from bench.store.fields import Document, Positive, Share

DEFAULT_POWER = 0.8  # the power that studies are planned for
MAX_IMAGES = 100_000_000  # images
SIMULATED = 2000  # studies
COUNT_TAIL = 8.0  # standard deviations beyond which a count of discordant images is left out

Ints = NDArray[np.int64]


class Needed(Document):
    """How many images show a difference with some power."""

    power: Share
    """The chance of finding it."""
    paired: Positive | None
    """On the same images; None: more than any dataset has."""
    unpaired: Positive | None
    """In each of two runs on images of their own."""


class Power(Document):
    """What a comparison of two runs can show."""

    difference: float
    """Of the accuracies."""
    discordance: Share
    """The share of images that one run alone has right."""
    accuracy: Share | None = None
    """Of the first run; None: not given, and 0.5 is assumed where images are not paired."""
    needed: list[Needed]
    """For several powers."""
    n: Positive | None = None
    """Images that there are."""
    power: Share | None = None
    """The chance that n images show this difference."""
    simulated: Share | None = None
    """The same in 2,000 simulated studies of n images."""
    smallest: float | None = None
    """The smallest difference that n images show with a power of 80 %; None: none."""


def plan_power(
    difference: float,
    discordance: float,
    n: int | None = None,
    accuracy: float | None = None,
) -> Power:
    """Return how many images a difference needs, and what n images can show.

    Args:
        difference: of the accuracies; its sign is of no matter.
        discordance: the share of images that one run alone has right.
        n: images that there are; None: not said.
        accuracy: of the first run, for images that are not paired; None: the worst case.

    Raises:
        UserError: no two runs can differ so.
    """
    difference = abs(difference)
    check(difference, discordance)
    alone = (discordance - difference) / 2  # the share that the worse run alone has right
    if accuracy is not None and not alone - 1e-9 <= accuracy <= 1 - alone + 1e-9:
        raise UserError(
            f"--accuracy {accuracy:g}: with these shares a run is right on {alone:.4g} to"
            f" {1 - alone:.4g} of the images."
        )
    known: dict[str, float | None] = {}
    if n is not None:
        known = {
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
        **known,
    )


def check(difference: float, discordance: float) -> None:
    """Refuse what cannot be.

    Raises:
        UserError: the difference is larger than the discordance, or one of them is no share.
    """
    if not 0 < discordance <= 1:
        raise UserError(
            f"--discordance {discordance:g}: a share above 0 is wanted, such as 0.1 where one run"
            " alone is right on a tenth of the images."
        )
    if not 0 < difference <= discordance:
        raise UserError(
            f"--difference {difference:g}: it is above 0 and at most the discordance,"
            f" {discordance:g}: accuracies differ by wins less losses, and both together are the"
            " discordance."
        )


def exact_power(n: int, difference: float, discordance: float) -> float:
    """Return the chance that McNemar's exact test on n images finds the difference (p < 0.05).

    Exact: summed over the number of discordant images, and over who wins them. A finding in the
    wrong direction does not count.
    """
    from scipy.stats import binom

    spread = COUNT_TAIL * sqrt(n * discordance * (1 - discordance)) + 1
    low, high = max(0, int(n * discordance - spread)), min(n, ceil(n * discordance + spread))
    counts = np.arange(low, high + 1)
    wins = (discordance + difference) / (2 * discordance)
    found = binom.cdf(most_losses(counts), counts, 1 - wins)
    return float(min(1.0, (binom.pmf(counts, n, discordance) * found).sum()))


def most_losses(discordant: Ints) -> Ints:
    """Return of each number of discordant images the most losses that are still significant.

    -1: however they fall, they are not.
    """
    from scipy.special import bdtr
    from scipy.stats import binom

    found = np.asarray(binom.ppf(ALPHA / 2, np.maximum(discordant, 1), 0.5)).astype(np.int64)
    significant = 2 * bdtr(found, np.maximum(discordant, 1), 0.5) < ALPHA
    return np.where(significant, found, found - 1)


def images_needed(
    difference: float, discordance: float, power: float = DEFAULT_POWER
) -> int | None:
    """Return how many images show the difference with this power, on the same images.

    The exact power rises in small steps back and forth; this is where it has passed, to within
    what one image more or less moves.
    """
    low, high = 1, 2
    while exact_power(high, difference, discordance) < power:
        low, high = high, 2 * high
        if high > MAX_IMAGES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if exact_power(middle, difference, discordance) < power:
            low = middle
        else:
            high = middle
    return high


def smallest_difference(n: int, discordance: float, power: float = DEFAULT_POWER) -> float | None:
    """Return the smallest difference that n images show with this power; None: none."""
    low, high = 0.0, discordance
    if exact_power(n, high, discordance) < power:
        return None
    while high - low > 1e-5:
        middle = (low + high) / 2
        if exact_power(n, middle, discordance) < power:
            low = middle
        else:
            high = middle
    return high


def unpaired_images(difference: float, accuracy: float | None, power: float) -> int | None:
    """Return how many images each of two runs needs that are not made of the same ones.

    Of Fisher's exact test, by the normal approximation of two shares with a correction for
    continuity (Fleiss, Tytun & Ury, Biometrics 36, 1980); a few too many where one of them is
    nearly always right. Without an accuracy, at the largest variance.
    """
    from scipy.stats import norm

    one = 0.5 - difference / 2 if accuracy is None else accuracy
    other = min(1.0, max(0.0, one + difference if one + difference <= 1 else one - difference))
    mean = (one + other) / 2
    under_null = float(norm.isf(ALPHA / 2)) * sqrt(2 * mean * (1 - mean))
    if_so = float(norm.isf(1 - power)) * sqrt(one * (1 - one) + other * (1 - other))
    plain = ((under_null + if_so) / difference) ** 2
    found = ceil(plain / 4 * (1 + sqrt(1 + 4 / (plain * difference))) ** 2)
    return max(1, found) if found <= MAX_IMAGES else None


def simulated_power(
    n: int, difference: float, discordance: float, studies: int = SIMULATED, seed: int = 0
) -> float:
    """Return the share of simulated studies of n images that find the difference."""
    rng = np.random.default_rng(seed)
    wins = (discordance + difference) / (2 * discordance)
    discordant = rng.binomial(n, discordance, size=studies)
    won = rng.binomial(discordant, wins)
    lost = discordant - won
    return float(((mcnemar(won, lost) < ALPHA) & (won > lost)).mean())
