"""Methods on the same images in random order: which are shown not to be the best, or how they rank.

Both hold at every number of images, for methods that leave and are then scored no further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import log
from typing import Literal, NamedTuple

import numpy as np

from bench.contracts.strategy import Floats
from bench.stats.paired import ALPHA
from bench.stats.sequential import largest_log_capital, log_capital

Stop = Literal["best", "ranked"]


class Standings(NamedTuple):
    """What the images so far show."""

    out: dict[str, int]  # methods that are not the best → number of images that shows it
    open: tuple[str, ...]  # methods of which more images are needed, best first
    leader: str  # method with the highest accuracy of those with the most images
    unresolved: tuple[tuple[str, str], ...] = ()  # pairs whose order is not shown

    @property
    def decided(self) -> bool:
        """Whether the study's question is answered."""
        return not self.open


def standings(results: Mapping[str, Floats], stop: Stop, margin: float | None = None) -> Standings:
    """Return what the images so far show; those of a method that left are fewer.

    Args:
        results: method → float64 [n] in [0, 1], its results per image in the common random order.
        stop: `best`: until one method is left, or with a margin until one is within it of all that
            are left; `ranked`: until the order of every pair is shown, or its equality.
        margin: difference of accuracies that counts as none; None: none does.
    """
    most = max(map(len, results.values()))
    order = sorted(results, key=lambda m: (-len(results[m]), -float(results[m].mean())))
    if stop == "best":
        return _best(results, order, margin, most)
    return _ranked(results, order, margin)


def _best(
    results: Mapping[str, Floats], order: Sequence[str], margin: float | None, most: int
) -> Standings:
    """Return the sequential model confidence set (Arnold, Gavrilopoulos, Schulz & Ziegel, 2024).

    "This method is the best" is rejected by the mean of the capitals of all others against it,
    which is a fair bet too. A best method ever leaves with a probability of at most α; with a
    margin, half of α is for that, the other half for the equality of those that are left.
    """
    alpha = ALPHA if margin is None else ALPHA / 2
    out = {}
    for method, own in results.items():
        paths = np.stack([_capital(results[o], own) for o in results if o != method])
        largest = paths.max(axis=0)
        mean = largest + np.log(np.exp(paths - largest).mean(axis=0))
        if (shown := np.flatnonzero(mean >= log(1 / alpha))).size:
            out[method] = int(shown[0]) + 1
    left = tuple(method for method in order if method not in out and len(results[method]) == most)
    leader = left[0] if left else order[0]
    if margin is not None and len(left) > 1:
        needed = log(2 * (len(results) - 1) / ALPHA)
        close = [
            largest_log_capital(results[leader] - results[other], -margin)[-1] >= needed
            for other in left[1:]
        ]
        left = left if not all(close) else (leader,)
    return Standings(out, left if len(left) > 1 else (), leader)


def _capital(other: Floats, own: Floats) -> Floats:
    """Return the capital against "own is no worse" after each of own's images.

    It stays where it is after the other method has left.
    """
    shared = min(len(other), len(own))
    path = log_capital(other[:shared] - own[:shared], 0.0)
    return np.concatenate([path, np.full(len(own) - shared, path[-1])])


def _ranked(results: Mapping[str, Floats], order: Sequence[str], margin: float | None) -> Standings:
    """Test every pair with Holm's correction (1979) of p = 1 / largest capital.

    With a margin, half of α is for differences and half for equalities.
    """
    alpha = ALPHA if margin is None else ALPHA / 2
    pairs = list(combinations(order, 2))
    differ: list[float] = []
    equal: list[float] = []
    for a, b in pairs:
        shared = min(len(results[a]), len(results[b]))
        values = results[a][:shared] - results[b][:shared]
        differ.append(min(1.0, 2 * min(_p(sign * values, 0.0) for sign in (1, -1))))
        if margin is not None:
            equal.append(max(_p(sign * values, -margin) for sign in (1, -1)))
    resolved = _holm(differ, alpha) | _holm(equal, alpha)
    unresolved = tuple(pair for place, pair in enumerate(pairs) if place not in resolved)
    left = {method for pair in unresolved for method in pair}
    return Standings({}, tuple(m for m in order if m in left), order[0], unresolved)


def _p(values: Floats, mean: float) -> float:
    return float(np.exp(-max(largest_log_capital(values, mean)[-1], 0.0)))


def _holm(p: Sequence[float], alpha: float) -> set[int]:
    """Return the places of the hypotheses that Holm's procedure rejects."""
    rejected: set[int] = set()
    for place in sorted(range(len(p)), key=lambda place: p[place]):
        if p[place] > alpha / (len(p) - len(rejected)):
            break
        rejected.add(place)
    return rejected
