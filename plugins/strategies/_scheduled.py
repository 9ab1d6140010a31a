"""A race that falls back on the published schedule: `ceiling=schedule`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Ints, Problem
from bench.inputs.draws import sub_grid
from bench_plugins.strategies._order import by_bands
from bench_plugins.strategies._racing import RaceSession
from bench_plugins.strategies.adaptive import Adaptive

if TYPE_CHECKING:
    from bench_plugins.strategies.race import Race


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


class ScheduledSession(RaceSession):
    """One image's race in the two stages of the schedule.

    When the draws of the first stage are used up, as many of the surviving prompts are kept as
    what is left pays for on all the others: at least the five that the schedule keeps.
    """

    def __init__(self, strategy: Race, problem: Problem) -> None:
        super().__init__(strategy, problem)
        self.stage = first_stage(len(self.order))
        self.level = self.each / strategy.looks(len(self.order))

    def goes_on(self, step: int) -> bool:
        """Return True: no round of either stage costs more than the schedule's own."""
        return True

    def wanted(self) -> int:
        """Return the size of the next round, which ends where the first stage does."""
        step = super().wanted()
        return min(step, self.stage - self.seen) if self.seen < self.stage else step

    def survivors(self) -> NDArray[np.bool_]:
        """Keep what the bound keeps; at the end of the first stage, as many as are paid for."""
        kept = super().survivors()
        paid = self.budget.prompts(len(self.order) - self.seen)
        if self.seen != self.stage or kept.sum() <= paid:
            return kept
        self.cut = True
        scores = np.where(kept, self.table.scores()[self.alive], np.inf)
        kept[np.argsort(scores, kind="stable")[paid:]] = False
        return kept
