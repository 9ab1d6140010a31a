"""In which order a strategy asks for draws."""

from __future__ import annotations

import re

import numpy as np

from bench.contracts.strategy import Floats, Ints
from bench.inputs.draws import even_order


def shuffled(n_draws: int, seed: int) -> Ints:
    """Return int64 [N], a uniformly random permutation of the draws; the same for every image."""
    return np.random.default_rng([seed, n_draws]).permutation(n_draws)


def by_bands(bands: str, timesteps: Ints) -> Ints:
    """Return int64 [N]: the draws of the bands first, band by band, the others after them.

    Within each part the order is even, and draws of one timestep come together.

    Args:
        bands: timesteps, such as `650-850` or `650-850,400-650`; both ends belong to a band, and
            `even` means none.
        timesteps: int64 [N], of the draws, ascending.

    Raises:
        ValueError: the text is not of that form.
    """
    distinct, unit_of_draw = np.unique(timesteps, return_inverse=True)
    order = even_order(len(distinct))
    part = np.full(len(distinct), np.iinfo(np.int64).max)
    for number, (low, high) in enumerate(parse_bands(bands)):
        inside = (distinct >= low) & (distinct <= high)
        part[inside] = np.minimum(part[inside], number)
    place = np.empty(len(distinct), dtype=np.int64)
    place[order[np.argsort(part[order], kind="stable")]] = np.arange(len(distinct))
    return np.asarray(np.argsort(place[unit_of_draw], kind="stable"))


def timestep_means(values: Floats, timesteps: Ints) -> Floats:
    """Return float64 [A, u]: the means of `values`, [A, n], over the draws of each timestep.

    Args:
        values: float64 [A, n].
        timesteps: int64 [n], ascending.
    """
    starts = np.flatnonzero(np.diff(timesteps, prepend=-1))
    sums = np.add.reduceat(values, starts, axis=1)
    return np.asarray(sums / np.diff(starts, append=len(timesteps)))


def parse_bands(bands: str) -> list[tuple[int, int]]:
    """Return the (low, high) of each band.

    Raises:
        ValueError: the text is not of the form that `by_bands` takes.
    """
    if bands == "even":
        return []
    pairs = [re.fullmatch(r"\s*(\d+)-(\d+)\s*", band) for band in bands.split(",")]
    limits = [(int(pair[1]), int(pair[2])) for pair in pairs if pair]
    if len(limits) < len(pairs) or any(low > high for low, high in limits):
        raise ValueError(
            f"order={bands} is neither 'even' nor bands of timesteps such as 650-850,400-650"
        )
    return limits
