"""Power analysis: number of images needed to detect a difference between two runs.

The *discordance* of two runs is the share of images that exactly one of them gets right. McNemar's
exact test uses only these, so runs that mostly agree need far fewer images than unpaired runs.
"""

from bisect import bisect_left
from math import ceil, sqrt

import numpy as np

from bench.contracts.strategy import Ints
from bench.errors import UserError
from bench.machine.libraries import optimize, stats
from bench.stats.inference.paired import ALPHA
from bench.store.formats.fields import Document, Positive, Share

DEFAULT_POWER = 0.8  # usual in the planning of studies
MAX_IMAGES = 100_000_000
COUNT_TAIL = 8.0  # standard deviations beyond which a number of discordant images is left out


class Needed(Document):
    """Number of images needed to detect a difference with a given power."""

    power: Share  # probability of detecting the difference
    paired: Positive | None  # images, the same for both runs; None if more than MAX_IMAGES


class Power(Document):
    """Power analysis of the comparison of two runs."""

    difference: float  # absolute difference of the accuracies
    discordance: Share  # share of images that exactly one run gets right
    needed: list[Needed]  # numbers of images for several powers
    n: Positive | None = None  # number of available images
    power: Share | None = None  # probability of detecting the difference with n images; exact
    smallest: float | None = None  # difference detected with a power of 80 %, None if none is


def plan_power(difference: float, discordance: float, n: int | None = None) -> Power:
    """Return the number of images needed for several powers, and the power of n images.

    The sign of `difference` is ignored. Raises UserError if no two runs can have these values.
    """
    difference = abs(difference)
    check_shares(difference, discordance)
    return Power(
        difference=difference,
        discordance=discordance,
        needed=[
            Needed(power=power, paired=images_needed(difference, discordance, power))
            for power in (0.5, DEFAULT_POWER, 0.9, 0.95)
        ],
        n=n,
        power=n and exact_power(n, difference, discordance),
        smallest=n and smallest_difference(n, discordance),
    )


def check_shares(difference: float, discordance: float) -> None:
    """Raise a UserError unless 0 < difference <= discordance <= 1."""
    if not 0 < discordance <= 1:
        raise UserError(
            f"--discordance must be above 0 and at most 1, got {discordance:g}. It is 0.1 if"
            " exactly one run is right on a tenth of the images."
        )
    if not 0 < difference <= discordance:
        raise UserError(
            f"--difference must be above 0 and at most the discordance ({discordance:g}), got"
            f" {difference:g}. The difference is wins minus losses; the discordance is wins plus"
            " losses."
        )


def exact_power(n: int, difference: float, discordance: float) -> float:
    """Return the power of McNemar's exact test on n images; the wrong direction does not count.

    It is the mean, over the number of discordant images, of the probability of few enough losses.
    """
    mean, spread = n * discordance, COUNT_TAIL * sqrt(n * discordance * (1 - discordance)) + 1
    discordant = np.arange(max(0, int(mean - spread)), min(n, ceil(mean + spread)) + 1)
    win_rate = (discordance + difference) / (2 * discordance)
    detected = stats.binom.cdf(max_significant_losses(discordant), discordant, 1 - win_rate)
    return float(min(1.0, (stats.binom.pmf(discordant, n, discordance) * detected).sum()))


def max_significant_losses(discordant: Ints) -> Ints:
    """Return the most losses with p < 0.05, or -1, for each number of `discordant` images."""
    trials = np.maximum(discordant, 1)
    losses = np.asarray(stats.binom.ppf(ALPHA / 2, trials, 0.5)).astype(np.int64)
    return np.where(2 * stats.binom.cdf(losses, trials, 0.5) < ALPHA, losses, losses - 1)


def images_needed(
    difference: float, discordance: float, power: float = DEFAULT_POWER
) -> int | None:
    """Return the number of images, the same for both runs, needed to detect the difference.

    The power is not quite monotone in the number of images, so slightly fewer may also have it.
    None if more than MAX_IMAGES are needed.
    """

    def power_of(n: int) -> float:
        return exact_power(n, difference, discordance)

    enough = 2
    while power_of(enough) < power:
        enough *= 2
        if enough > MAX_IMAGES:
            return None
    fewest = enough // 2 + 1  # half of them, or a single image, had too little power
    return fewest + bisect_left(range(fewest, enough), power, key=power_of)


def smallest_difference(n: int, discordance: float) -> float | None:
    """Return the smallest difference that n images detect with a power of 80 %, or None."""

    def excess(difference: float) -> float:
        return exact_power(n, difference, discordance) - DEFAULT_POWER

    return None if excess(discordance) < 0 else float(optimize.brentq(excess, 0.0, discordance))
