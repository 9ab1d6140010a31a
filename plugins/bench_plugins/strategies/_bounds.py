"""The tests of a race: in which order it draws, and which prompts are significantly worse.

The bounds are on the mean over all N draws of a paired difference, the error of a prompt minus that
of the leader on the same draw, given n of the draws. Dimensions: [P] all prompts, [A] prompts still
alive, the leader included, [N] draws, [n] draws seen, [U] distinct timesteps of all N draws.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import ceil, log, pi, sqrt
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np

from bench.contracts.draw_order import sub_grid
from bench.contracts.strategy import Bools, Floats, Ints, Problem, comparison_words
from bench_plugins.strategies.elimination import (
    Adaptive,
    order_by_bands,
    shuffle_draws,
    timestep_means,
)

TINY = np.finfo(np.float64).tiny
POOLED_DOF = 8  # degrees of freedom that the mean variance of all rivals counts as
CEILING_POOLED_DOF = 16  # the same, for a race within the published schedule
LEARNED_DOF = 16  # degrees of freedom that a variance learned from other images counts as
MIN_TOTAL_DOF = 20  # total degrees of freedom before a race within the schedule drops a prompt
MIN_STDERR = 1e-150  # so that a division by it does not overflow


class RaceSettings(Protocol):
    """The parameters of `Race` that a session reads."""

    bound: str
    ceiling: str | None
    delta: float
    deviation: float
    first: int
    order: str
    span: float
    tie: float


class RaceBound(ABC):
    """The test of one image's race, on draws in the order `order`, int64 [N].

    `look` takes the differences of one look, and `worse` says who is significantly worse by them.
    A look needs `min_draws` draws.
    """

    as_drawn: ClassVar[bool] = False  # whether differences are in the order drawn, or by timestep
    unused: ClassVar[Mapping[str, Any]] = {}  # parameters that must have these values

    def __init__(self, settings: RaceSettings, problem: Problem, order: Ints) -> None:
        self.settings, self.problem, self.order = settings, problem, order
        self.min_draws = 1 if settings.deviation else 2  # two for a variance

    @classmethod
    def check(cls, settings: RaceSettings) -> None:
        """Refuse parameters that this bound cannot use (ValueError)."""
        for name, value in cls.unused.items():
            if (given := getattr(settings, name)) != value:
                raise ValueError(f"{name}={given} requires bound=t, got bound={settings.bound}")

    @classmethod
    def words(cls, settings: RaceSettings) -> str:
        """Return a sentence that says what `delta` means for an answer."""
        return comparison_words(settings.delta, "delta")

    def round_end(self, end: int) -> int:
        """Return after how many draws a round ends that should end after `end`, at most N."""
        return end

    @abstractmethod
    def look(self, differences: Floats, alive: Ints) -> None:
        """Take a look's differences [A, n]: weighted errors minus those of the leader.

        They are positive where a prompt is worse. `alive` [A] are the prompts' indices.
        """

    @abstractmethod
    def worse(self, margin: float = 0.0) -> Bools:
        """Return bool [A]: whose mean difference over all draws is significantly above -`margin`.

        So with a margin of 0 the prompts are worse than the leader, and with a larger one they are
        not better by more than the margin, which is in units of the differences.
        """


class TBound(RaceBound):
    """One-sided t bounds on draws spread over the timesteps, in whole timesteps; see `t_lower`.

    `order` has the draws of a timestep side by side; `timestep_ends` [U] are the numbers of draws
    after which each timestep is complete.
    """

    def __init__(self, settings: RaceSettings, problem: Problem, order: Ints | None = None) -> None:
        if order is None:
            order = order_by_bands(settings.order, problem.timesteps)
        super().__init__(settings, problem, order)
        self.timestep_ends = np.flatnonzero(np.diff(problem.timesteps[order], append=-1)) + 1
        self.means: Floats = np.zeros((0, 0))

    def round_end(self, end: int) -> int:
        """Return the end of the timestep that the draw before `end` belongs to."""
        last = np.searchsorted(self.timestep_ends, min(end, len(self.order)))
        return int(self.timestep_ends[last])

    def look(self, differences: Floats, alive: Ints) -> None:
        """Average the differences over each timestep's draws."""
        seen = self.order[: differences.shape[1]]
        self.means = timestep_means(differences, np.sort(self.problem.timesteps[seen]))

    def worse(self, margin: float = 0.0) -> Bools:
        """Return bool [A]: whose lower bound is above -`margin`."""
        if self.means.shape[1] < self.min_draws:
            return np.zeros(len(self.means), dtype=bool)
        settings, n_timesteps = self.settings, len(self.timestep_ends)
        return t_lower(self.means, n_timesteps, settings.delta, settings.deviation) > -margin


class BettingBound(RaceBound):
    """Bets on draws in random order, without a variance; see `betting_evidence`.

    `largest` is the largest absolute difference from a leader so far.
    """

    as_drawn = True
    unused = MappingProxyType({"deviation": 0.0, "order": "even", "ceiling": None})

    @classmethod
    def words(cls, settings: RaceSettings) -> str:
        """Return a sentence that says what `delta` means for an answer."""
        if not settings.span:
            bets = f"A class was dropped by bets (delta={settings.delta:g})"
            return f"{bets}; without a span, nothing is promised."
        return (
            f"An answer is not the full sweep's for at most {100 * settings.delta:g} % of images"
            f" (delta), if two errors on a draw differ by at most {settings.span:g} (span)."
        )

    def __init__(self, settings: RaceSettings, problem: Problem) -> None:
        super().__init__(settings, problem, shuffle_draws(len(problem.timesteps), problem.seed))
        self.largest = 0.0
        self.differences: Floats = np.zeros((0, 0))

    def look(self, differences: Floats, alive: Ints) -> None:
        """Note the differences, and the largest one so far."""
        self.differences = differences
        self.largest = max(self.largest, float(np.abs(differences).max()))

    def worse(self, margin: float = 0.0) -> Bools:
        """Return bool [A]: against whom the bets have won enough for `delta`."""
        span = self.settings.span or 2 * self.largest
        rivals = max(1, len(self.problem.class_of_prompt) - 1)
        log_wealth = betting_evidence(self.differences + margin, len(self.order), span)
        return np.asarray(log_wealth >= log(rivals / self.settings.delta))  # a union bound


class ScheduleBound(TBound):
    """The t bound of a race within the published schedule, which spends `delta` over the looks.

    `variances` [P] are the latest of each prompt's difference from the leader. Dropped prompts keep
    theirs, because they are often the ones with rare large errors; without them the pooled variance
    would be too small. After `draws_for_dof` draws, the P - 1 rivals of the start have
    `MIN_TOTAL_DOF` degrees of freedom together, draws - 1 each. `n_looks` counts the looks since.
    """

    def __init__(self, settings: RaceSettings, problem: Problem) -> None:
        super().__init__(settings, problem, staged_order(settings.order, problem.timesteps))
        prompts = len(problem.class_of_prompt)
        self.variances = np.zeros(prompts)
        self.draws_for_dof = 1 + ceil(MIN_TOTAL_DOF / max(1, prompts - 1))
        self.n_looks = 0

    @classmethod
    def words(cls, settings: RaceSettings) -> str:
        """Return a sentence that says what `delta` means for an answer."""
        return (
            "Classes were dropped so that one that is no worse is among them for at most"
            f" {100 * settings.delta:g} % of images (delta; all comparisons of an image together)."
        )

    def look(self, differences: Floats, alive: Ints) -> None:
        """Average the differences over each timestep's draws, and note their variances."""
        super().look(differences, alive)
        # Here draws are compared with `draws_for_dof`, and in `worse` timesteps. With two draws per
        # timestep, looks are counted early, which only makes the later shares of `delta` smaller.
        if differences.shape[1] >= self.draws_for_dof:
            self.n_looks += 1
        self.variances[alive] = successive_variance(self.means)[0]

    def worse(self, margin: float = 0.0) -> Bools:
        """Return bool [A]: prompts unlikely to end ahead by more than `margin`.

        The probability of a t distribution, times the number of rivals (a union bound), is compared
        with this look's share of `delta`.
        """
        from scipy.special import stdtr

        n, deviation = self.means.shape[1], self.settings.deviation  # n of the timesteps
        if n < self.draws_for_dof:
            return np.zeros(len(self.means), dtype=bool)
        variance, dof = successive_variance(self.means)
        measured = self.variances[self.variances > 0]
        if len(measured) > 1:
            variance, dof = moderate(variance, dof, float(measured.mean()), CEILING_POOLED_DOF)
        if deviation:
            variance, dof = moderate(variance, dof, deviation**2, LEARNED_DOF)
        seen = n / len(self.timestep_ends)  # 1 - seen is the correction that `t_lower` explains
        stderr = np.maximum(np.sqrt(variance * (1 - seen) / n), MIN_STDERR)
        t = (self.means.mean(axis=1) + margin) / stderr
        rivals = max(1, len(self.means) - 1)
        share = 6 / (pi * self.n_looks) ** 2  # alpha spending: the sum of 6 / (pi k)² over k is 1
        return np.asarray(rivals * stdtr(dof, -t) < share * self.settings.delta)


BOUNDS: dict[str, type[TBound] | type[BettingBound]] = {"t": TBound, "betting": BettingBound}


def first_stage_size(n_draws: int) -> int:
    """Return the number of draws in the first stage of the default schedule of `adaptive`."""
    return Adaptive(draws=n_draws).samples[0]


def staged_order(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the schedule's first stage, then the others, each in `order_by_bands`."""
    first = sub_grid(first_stage_size(len(timesteps)), len(timesteps))
    others = np.setdiff1d(np.arange(len(timesteps)), first)
    parts = [part[order_by_bands(bands, timesteps[part])] for part in (first, others) if len(part)]
    return np.concatenate(parts)


def t_lower(differences: Floats, n_draws: int, delta: float, deviation: float = 0.0) -> Floats:
    """Return float64 [A]: lower confidence bounds (one-sided t) for draws spread over timesteps.

    `differences` [A, n] are in timestep order; they may be means of timesteps instead of draws, n
    of `n_draws`. `delta` is the significance level of one comparison.

    They are mean - t s sqrt((1 - n / N) / n), with the `successive_variance` s² and the quantile t
    at `delta`. 1 - n / N is the finite-population correction: the mean over all N draws is known
    once they have been seen.

    After four draws such a variance is sometimes tiny by chance, and the race then drops its
    winner. So each variance is moderated: averaged with the mean variance of all rivals, which
    counts as 8 degrees of freedom (as in Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004). In hard
    races (21 classes with gaps scaled down to 0.3, made from 40 recorded training digits) a `delta`
    of 0.05 then agrees with the exhaustive decision on 99.5 % of images at 546 evaluations,
    compared with 78 % at 593 without moderation.

    Variances differ little from image to image (design/racing.md). So if their root mean square
    over other images is known (`deviation` is not 0), it is averaged in as well and counts as 16
    degrees of freedom. A single draw is then enough for a bound; otherwise n must be at least 2.
    """
    from scipy.special import stdtrit

    n = differences.shape[1]
    variance, dof = successive_variance(differences)
    rivals = variance > 0  # the leader's differences from itself have none
    if rivals.sum() > 1:
        moderated, dof = moderate(variance, dof, float(variance[rivals].mean()), POOLED_DOF)
        variance = np.where(rivals, moderated, variance)
    if deviation:
        variance, dof = moderate(variance, dof, deviation**2, LEARNED_DOF)
    factor = abs(stdtrit(dof, delta)) * sqrt((1 - n / n_draws) / n)
    return np.asarray(differences.mean(axis=1) - factor * np.sqrt(variance))


def successive_variance(differences: Floats) -> tuple[Floats, float]:
    """Return the variances of [A, n] differences, float64 [A], and their degrees of freedom.

    They are estimated from neighbours in timestep order, so that a trend along the timesteps, which
    an even sub-grid averages out, does not count as noise: s² = sum (d_{i+1} - d_i)² / (2 (n - 1)),
    with 2 (n - 1)² / (3 n - 4) degrees of freedom (von Neumann, Kent, Bellinson & Hart, Ann. Math.
    Stat. 12, 1941). A single draw has variance 0 with 0 degrees of freedom.
    """
    n = differences.shape[1]
    steps = differences[:, 1:] - differences[:, :-1]  # np.diff takes three times as long
    variance = np.einsum("an,an->a", steps, steps) / max(1, 2 * (n - 1))
    return np.asarray(variance), 2 * (n - 1) ** 2 / (3 * n - 4) if n > 1 else 0.0


def moderate(variance: Floats, dof: float, prior: float, prior_dof: int) -> tuple[Floats, float]:
    """Average variances with a prior one by degrees of freedom; return also the sum of these."""
    total = dof + prior_dof
    return np.asarray((dof * variance + prior_dof * prior) / total), total


def betting_evidence(differences: Floats, n_draws: int, span: float) -> Floats:
    """Return float64 [A]: the largest log wealth so far of bets against "the mean is <= 0".

    Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86,
    2024, section 5 (sampling without replacement). Under the null hypothesis that the mean of all N
    values is 0 or less, and with the values in random order, the i-th is expected to be at most
    c_i = -S_{i-1} / (N - i + 1), where S is the sum so far. A gambler who stakes l_i >= 0, chosen
    before the draw, has the wealth W_n = prod (1 + l_i (d_i - c_i)), a test supermartingale that
    starts at 1. By Ville's inequality, W ever reaches 1 / alpha with probability at most alpha, so
    the test is valid at every look without a correction. The stakes follow the paper's aGRAPA rule,
    l_i = max(0, m - c_i) / (s² + (m - c_i)²) for the mean m and variance s² before draw i, limited
    to 3/4 of the stake that could lose everything.

    `differences` [A, n] are in the order drawn; `span` is their largest possible absolute value.
    """
    before = np.arange(differences.shape[1])  # i - 1; so are the sums those before draw i
    sums = np.cumsum(differences, axis=1) - differences
    squares = np.cumsum(differences**2, axis=1) - differences**2
    mean = sums / np.maximum(before, 1)
    expected = -sums / (n_draws - before)
    # The variance so far, with one pseudo-observation of (span / 2)².
    variance = (span**2 / 4 + np.maximum(squares - before * mean**2, 0.0)) / (before + 1)
    edge = np.maximum(mean - expected, 0.0)
    # If c_i is below -span, d_i - c_i is positive for every possible d_i, and no stake can lose.
    # The floor of span / N then keeps the stakes finite.
    worst = np.maximum(span + expected, span / n_draws)
    stakes = np.minimum(edge / (variance + edge**2 + TINY), 0.75 / (worst + TINY))
    # A draw loses at most 3/4, also if it is below -span.
    gains = np.maximum(stakes * (differences - expected), -0.75)
    return np.asarray(np.cumsum(np.log1p(gains), axis=1).max(axis=1))
