"""Comparing speeds on a machine that is never quite quiet: in turns, by medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Work = Callable[[], float]  # does some cells and returns how many, in evaluations


def in_turns(
    works: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return each work's cells per second, round by round.

    One round does every work once, one after the other (ABCABC…), so that a disturbance of the
    machine meets all of them. A first round warms up and is not counted. `time.process_time` is
    the clock for one thread on a machine whose cores are taken by others.
    """
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            started = clock()
            cells = work()
            if turn:
                rates[name].append(cells / (clock() - started))
    return rates


def ratio(rates: Mapping[str, list[float]], name: str, base: str) -> float:
    """Return how much faster `name` is than `base`: the median of the rounds' ratios."""
    return median(a / b for a, b in zip(rates[name], rates[base], strict=True))
