"""A ceiling on what an image may cost, and how a race spends what is left below it."""

from __future__ import annotations

from math import ceil, inf, isinf

import numpy as np

from bench.contracts.strategy import Floats, Ints, Problem, Replaced
from bench.inputs.draws import sub_grid
from bench_plugins.strategies._elimination import by_bands
from bench_plugins.strategies.adaptive import Adaptive

ADAPTIVE = "adaptive"
SCHEDULE = "schedule"  # of a race alone: what `adaptive` takes, and its decision if need be
RESERVE = 0.5  # the share of a ceiling that a race among more than two keeps for the halving
BISECTIONS = 20

Ceiling = float | str | None


def check_ceiling(ceiling: Ceiling, names: tuple[str, ...] = (ADAPTIVE,)) -> None:
    """Refuse what is no ceiling.

    Args:
        ceiling: what was given.
        names: those that may be named.

    Raises:
        ValueError: it is neither a name nor a number above 0.
    """
    if ceiling is None or ceiling in names:
        return
    if isinstance(ceiling, str) or not ceiling > 0:
        text = ceiling if isinstance(ceiling, str) else f"{ceiling:g}"
        raise ValueError(
            f"ceiling={text} must be a number of evaluation equivalents per image, at least one for"
            f" each prompt, or {' or '.join(names)}"
        )


def most_equivalents(ceiling: Ceiling, problem: Problem) -> float:
    """Return the ceiling on a problem, in evaluation equivalents; infinite without one.

    `adaptive` and `schedule` are what the default schedule of `adaptive` takes on its draws.
    """
    if ceiling is None:
        return inf
    if isinstance(ceiling, str):
        return Adaptive(draws=len(problem.timesteps)).at_most(problem)
    return ceiling


def replaced(problem: Problem, **settings: object) -> Replaced:
    """Return what `adaptive` takes, and the settings of a race that never takes more."""
    return Replaced(ADAPTIVE, most_equivalents(ADAPTIVE, problem), settings)


def staged_order(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws of the schedule's first stage, then the others.

    Args:
        bands: the levels that come first within each of the two, as `by_bands` takes them.
        timesteps: int64 [N], of the draws, ascending.
    """
    first = sub_grid(first_stage(len(timesteps)), len(timesteps))
    others = np.setdiff1d(np.arange(len(timesteps)), first)
    parts = [part[by_bands(bands, timesteps[part])] for part in (first, others) if len(part)]
    return np.concatenate(parts)


def first_stage(n_draws: int) -> int:
    """Return how many draws the default schedule of `adaptive` gives to every prompt."""
    return Adaptive(draws=n_draws).samples[0]


class Budget:
    """What an image may still cost.

    Attributes:
        most: the ceiling, in evaluation equivalents; infinite without one.
        left: what is left of it.
    """

    def __init__(self, ceiling: Ceiling, problem: Problem) -> None:
        self.most = self.left = most_equivalents(ceiling, problem)
        self.cell, self.null, self.price = problem.cell_cost, problem.null_cost, problem.price
        self.timesteps = problem.timesteps

    def draws(self, prompts: int, amount: float | None = None) -> int:
        """Return the new draws that an amount pays for so many prompts; None: all that is left."""
        amount = self.left if amount is None else min(amount, self.left)
        if isinf(amount):
            return len(self.timesteps)
        return int((amount + 1e-9) // self.price(prompts, 1))

    def prompts(self, draws: int) -> int:
        """Return how many prompts what is left pays for on so many new draws."""
        return int((self.left - draws * self.null + 1e-9) // (draws * self.cell)) if draws else 0

    def halving(self, alive: int, unseen: int) -> tuple[int, int]:
        """Return (prompts to keep, new draws for them) of the next round of halving.

        What is left is spread evenly over the rounds until two are left; what a round cannot use,
        because the draws run out, goes to the others. Where a round's share does not pay for a
        draw of half the prompts, fewer are kept. (0, 0): not even two can have another draw.

        Args:
            alive: prompts so far, more than two.
            unseen: draws that they do not have yet.
        """
        sizes = [ceil(alive / 2)]
        while sizes[-1] > 2:
            sizes.append(ceil(sizes[-1] / 2))
        share, high = self.left / len(sizes), self.left
        for _ in range(BISECTIONS):
            middle = (share + high) / 2
            if self._rounds(sizes, unseen, middle) <= self.left:
                share = middle
            else:
                high = middle
        if (step := self.draws(sizes[0], share)) > 0:
            return sizes[0], min(step, unseen)
        keep = min(sizes[0], int((self.left + 1e-9 - self.null) // self.cell))
        return (keep, 1) if keep >= 2 else (0, 0)

    def _rounds(self, sizes: list[int], unseen: float, share: float) -> float:
        total = 0.0
        for prompts in sizes:
            step = min(unseen, share / self.price(prompts, 1))
            total += step * self.price(prompts, 1)
            unseen -= step
        return total


def best(scores: Floats, classes: Ints, keep: int) -> Ints:
    """Return the places of the `keep` lowest scores, ascending, of two classes if there are two.

    Args:
        scores: float64 [A].
        classes: int64 [A].
        keep: how many, at least two.
    """
    order = scores.argsort(kind="stable")
    kept = order[:keep].copy()
    others = order[classes[order] != classes[order[0]]]
    if len(others) and not (classes[kept] != classes[order[0]]).any():
        kept[-1] = others[0]
    kept.sort()
    return kept
