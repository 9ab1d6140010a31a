"""Races replayed in numpy, on many tables of errors at once: candidates for a bound.

The strategies of the toolkit decide image by image; here all tables take a look together, so that
thousands are decided in a second. `tests/plugins/strategies/test_front.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma, stdtr, stdtrit

from bench.inputs.draws import sub_grid
from bench_plugins.strategies._elimination import order_by_bands
from bench_plugins.strategies._published import (
    MIN_TOTAL_DOF,
    PRIOR_DOF,
    first_stage_size,
    staged_order,
)
from bench_plugins.strategies._racing import GROWTH, POOLED_DOF

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
KEPT = 5  # by the first stage of the schedule
INFINITE = 1e6  # degrees of freedom


class Decisions(NamedTuple):
    """What a strategy decided: the winner of each table, int64 [B], and its cost, float64 [B]."""

    winners: NDArray[np.int64]
    costs: Floats


@dataclass(frozen=True)
class Look:
    """What all races see at a look.

    Attributes:
        gap: float64 [B, P], of each mean from the leader's.
        variance: float64 [B, P], of the differences from the leader; 0 for the leader.
        last: float64 [B, P], the last variance of every prompt, of dropped ones too.
        rivals: bool [B, P], survivors but the leader.
        leaders: int64 [B].
        draws: draws seen.
        n_draws: all of them.
        number: of this look among those with enough degrees of freedom, from 1; 0: too few.
        looks: number of looks of a race that uses all draws.
    """

    gap: Floats
    variance: Floats
    last: Floats
    rivals: Bools
    leaders: NDArray[np.int64]
    draws: int
    n_draws: int
    number: int
    looks: int

    @property
    def freedom(self) -> float:
        """Degrees of freedom of a variance."""
        return 2 * (self.draws - 1) ** 2 / (3 * self.draws - 4)

    @property
    def count(self) -> NDArray[np.int64]:
        """int64 [B, 1], the number of rivals."""
        return np.asarray(np.maximum(1, self.rivals.sum(axis=1, keepdims=True)))

    def distance(self, variance: Floats) -> Floats:
        """Return float64 [B, P], the gaps in standard errors."""
        share = 1 - self.draws / self.n_draws
        return self.gap / np.maximum(np.sqrt(variance * share / self.draws), 1e-150)


Rule = Callable[[Look], Bools]


def pooled(look: Look, variances: Floats, prior: float) -> tuple[Floats, Floats, Floats]:
    """Return moderated variances, their degrees of freedom, and the mean of `variances`."""
    known = (variances > 0).sum(axis=1, keepdims=True)
    mean = variances.sum(axis=1, keepdims=True) / np.maximum(known, 1)
    several = known > 1
    moderated = (look.freedom * look.variance + prior * mean) / (look.freedom + prior)
    freedom = np.where(several, look.freedom + prior, look.freedom)
    return np.where(several, moderated, look.variance), freedom, mean


def dial(delta: float, shared: bool = False) -> Rule:
    """Return the bound `t`; `shared`: its level, among rivals and looks (the old `schedule`)."""

    def rule(look: Look) -> Bools:
        variance, freedom, _ = pooled(look, np.where(look.rivals, look.variance, 0), POOLED_DOF)
        level = delta / (look.gap.shape[1] - 1) / look.looks if shared else delta
        return np.asarray(look.distance(variance) > np.abs(stdtrit(freedom, level)))

    return rule


def spending(delta: float, memory: bool, estimated: bool = False) -> Rule:
    """Return a bound whose level is spent over the looks, 6 / (pi j)² of it at look j.

    Args:
        delta: of an image.
        memory: whether variances of dropped prompts count.
        estimated: whether the degrees of freedom of the prior are estimated (Smyth 2004, section
            6.2), and not fixed.
    """

    def rule(look: Look) -> Bools:
        if not look.number:
            return np.zeros_like(look.rivals)
        variances = look.last if memory else np.where(look.rivals, look.variance, 0)
        variance, freedom, _ = pooled(look, variances, PRIOR_DOF)
        if estimated:
            prior, location = estimated_prior(variances, look.freedom)
            variance = (look.freedom * look.variance + prior * location) / (look.freedom + prior)
            freedom = look.freedom + prior
        chance = stdtr(np.broadcast_to(freedom, look.gap.shape), -look.distance(variance))
        return np.asarray(look.count * chance < delta * 6 / (pi * look.number) ** 2)

    return rule


def estimated_prior(variances: Floats, freedom: float) -> tuple[Floats, Floats]:
    """Return the degrees of freedom and the variance of limma's prior, float64 [B, 1] both.

    Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004, section 6.2: from mean and variance of the
    logarithms; no more than two variances have no prior.
    """
    shown = variances > 0
    count = shown.sum(axis=1, keepdims=True)
    logs = np.log(np.where(shown, variances, 1)) - digamma(freedom / 2) + np.log(freedom / 2)
    mean = np.where(shown, logs, 0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    squares = np.where(shown, (logs - mean) ** 2, 0).sum(axis=1, keepdims=True)
    excess = squares / np.maximum(count - 1, 1) - polygamma(1, freedom / 2)
    half = np.full_like(excess, 0.5) + 1 / np.maximum(excess, 1e-9)
    for _ in range(30):  # Newton's steps for trigamma(half) = excess
        value = polygamma(1, half)
        half = np.maximum(
            half + value * (1 - value / np.maximum(excess, 1e-9)) / polygamma(2, half), 1e-3
        )
    prior = np.where(excess > 0, np.minimum(2 * half, INFINITE), INFINITE)
    location = np.exp(mean + digamma(prior / 2) - np.log(prior / 2))
    return np.where(count > 2, prior, 0.0), location


def adaptive(errors: Floats) -> Decisions:
    """Decide float64 [B, P, N] by the published schedule."""
    tables, prompts, n_draws = errors.shape
    first = sub_grid(first_stage_size(n_draws), n_draws)
    scores = errors[:, :, first].mean(axis=2)
    kept = np.argsort(scores, axis=1, kind="stable")[:, :KEPT]
    best = np.take_along_axis(errors.mean(axis=2), kept, axis=1).argmin(axis=1)
    cost = prompts * len(first) + kept.shape[1] * (n_draws - len(first))
    return Decisions(kept[np.arange(tables), best], np.full(tables, float(cost)))


def race(
    errors: Floats,
    rule: Rule,
    first: int,
    timesteps: NDArray[np.int64],
    bands: str = "even",
    published: bool = False,
) -> Decisions:
    """Decide float64 [B, P, N] by races.

    Args:
        errors: weighted errors.
        rule: who is dropped.
        first: draws before the first look.
        timesteps: int64 [N].
        bands: levels to ask for first.
        published: whether the race is within the published schedule.
    """
    tables, prompts, n_draws = errors.shape
    order = (staged_order if published else order_by_bands)(bands, timesteps)
    stage = first_stage_size(n_draws) if published else 0
    left = np.full(tables, float(prompts * stage + min(KEPT, prompts) * (n_draws - stage)))
    alive, last = np.ones((tables, prompts), bool), np.zeros((tables, prompts))
    winners, costs = np.full(tables, -1), np.zeros(tables)
    active, seen, number = np.arange(tables), 0, 0
    looks = _looks(first, n_draws)
    while len(active):
        step = max(1, seen // GROWTH) if seen else first
        step = min(step, stage - seen if seen < stage else n_draws - seen)
        living = alive[active]
        costs[active] += step * living.sum(axis=1)
        seen += step
        drawn = errors[active][:, :, np.sort(order[:seen])]
        means = np.where(living, drawn.mean(axis=2), np.inf)
        leaders = means.argmin(axis=1)
        rows = np.arange(len(active))
        if 2 <= seen < n_draws:
            steps = np.diff(drawn - drawn[rows, leaders][:, None], axis=2)
            variance = np.einsum("bpn,bpn->bp", steps, steps) / (2 * (seen - 1))
            last[active] = np.where(living, variance, last[active])
            rivals = living.copy()
            rivals[rows, leaders] = False
            number += (prompts - 1) * (seen - 1) >= MIN_TOTAL_DOF
            gap = np.where(rivals, means - means[rows, leaders][:, None], 0)
            args = (gap, variance, last[active], rivals, leaders)
            look = Look(*args, seen, n_draws, number, looks)
            living = living & ~(rule(look) & rivals)
        if seen == stage < n_draws:
            paid = (left[active] - costs[active] + 1e-9) // (n_draws - stage)
            scores = np.where(living, means, np.inf)
            rank = np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1)
            living = living & (rank < paid[:, None])
        alive[active] = living
        done = (living.sum(axis=1) == 1) | (seen == n_draws)
        winners[active[done]] = np.where(living, means, np.inf).argmin(axis=1)[done]
        active = active[~done]
    return Decisions(winners, costs)


def _looks(first: int, n_draws: int) -> int:
    seen = count = 0
    while (seen := seen + (max(1, seen // GROWTH) if seen else first)) < n_draws:
        count += 1
    return max(1, count)
