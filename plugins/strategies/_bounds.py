"""How far a mean over some of the draws can be from the mean over all of them.

Each function takes paired differences d_k = (error of a prompt) - (error of the leader), and says
whether their mean over all N draws is significantly positive.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from bench.contracts.strategy import Floats

TINY = np.finfo(np.float64).tiny
POOLED = 8  # degrees of freedom that the mean variance of all rivals counts as
LEARNED = 16  # that a variance learned from other images counts as


def t_lower(differences: Floats, n_draws: int, delta: float, deviation: float = 0.0) -> Floats:
    """Return float64 [A]: the lower end of a one-sided t interval for draws spread over timesteps.

    The variance of the mean is estimated from neighbours in the order of the timesteps, so that the
    trend along them, which an even sub-grid averages out, does not count as noise: the successive
    difference s² = sum (d_{i+1} - d_i)² / (2 (n - 1)), with 2 (n - 1)² / (3 n - 4) degrees of
    freedom (von Neumann, Kent, Bellinson & Hart, Ann. Math. Stat. 12, 1941); and, because the
    draws are a finite set, times 1 - n / N.

    After four draws such a variance is sometimes tiny by chance, and then a race loses its winner.
    So each variance is averaged with the mean variance of all rivals, which counts as 8 degrees of
    freedom (as in Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004). In hard races (21 classes with
    gaps scaled down to 0.3, made from 40 recorded training digits) a level of 0.05 then agrees
    with the exhaustive decision on 99.5 % at 546 evaluations; without it on 78 % at 593.

    Variances differ little from image to image (design/racing.md). So where their root mean square
    over other images is known, it is averaged in as well, and counts as 16 degrees of freedom; then
    a bound needs a single draw.

    Args:
        differences: float64 [A, n], in timestep order, n >= 2, or 1 with a deviation.
        n_draws: N.
        delta: the level of one comparison.
        deviation: the standard deviation of a difference on a draw over other images; 0: unknown.
    """
    from scipy.special import stdtrit

    n = differences.shape[1]
    variance, freedom = successive_variance(differences)
    rivals = variance > 0  # the leader has none
    if rivals.sum() > 1:
        pooled = POOLED * variance[rivals].mean()
        variance = np.where(rivals, (freedom * variance + pooled) / (freedom + POOLED), variance)
        freedom += POOLED
    if deviation:
        variance = (freedom * variance + LEARNED * deviation**2) / (freedom + LEARNED)
        freedom += LEARNED
    factor = abs(stdtrit(freedom, delta)) * sqrt((1 - n / n_draws) / n)
    return np.asarray(differences.mean(axis=1) - factor * np.sqrt(variance))


def successive_variance(differences: Floats) -> tuple[Floats, float]:
    """Return the variances of [A, n] differences, float64 [A], and their degrees of freedom."""
    n = differences.shape[1]
    steps = differences[:, 1:] - differences[:, :-1]  # np.diff takes three times as long
    variance = np.einsum("an,an->a", steps, steps) / max(1, 2 * (n - 1))
    return np.asarray(variance), 2 * (n - 1) ** 2 / (3 * n - 4) if n > 1 else 0.0


def betting_evidence(differences: Floats, n_draws: int, span: float) -> Floats:
    """Return float64 [A]: the log of the most that betting against "the mean is <= 0" has won.

    Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86,
    2024, section 5 (sampling without replacement). If the mean of all N values is 0 or less, then
    after i - 1 of them, in random order, the next is expected to be c_i = -S_{i-1} / (N - i + 1)
    at the most, S being their sum. So a gambler who stakes l_i >= 0, chosen before the draw, owns
    W_n = prod (1 + l_i (d_i - c_i)), a supermartingale that starts at 1, and by Ville's inequality
    W ever reaches 1 / alpha with probability alpha at most: it holds at every look at no cost.
    The stakes are those of their aGRAPA rule, at most 3/4 of what could lose everything.

    Args:
        differences: float64 [A, n], in the order drawn.
        n_draws: N.
        span: the largest absolute difference there can be.
    """
    before = np.arange(differences.shape[1])
    sums = np.cumsum(differences, axis=1) - differences
    squares = np.cumsum(differences**2, axis=1) - differences**2
    mean = sums / np.maximum(before, 1)
    expected = -sums / (n_draws - before)
    # The variance so far, with one pseudo-observation of (span / 2)².
    variance = (span**2 / 4 + np.maximum(squares - before * mean**2, 0.0)) / (before + 1)
    edge = np.maximum(mean - expected, 0.0)
    # Where even draws of -span could not bring the mean down to 0, c_i is below -span: no stake
    # can lose; the bound below is large enough.
    worst = np.maximum(span + expected, span / n_draws)
    stakes = np.minimum(edge / (variance + edge**2 + TINY), 0.75 / (worst + TINY))
    wealth = np.cumsum(np.log1p(np.maximum(stakes * (differences - expected), -0.75)), axis=1)
    return np.asarray(np.maximum.accumulate(wealth, axis=1)[:, -1])
