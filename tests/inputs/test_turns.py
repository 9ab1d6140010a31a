"""No view is seen sooner, or more often, than another."""

import numpy as np
import pytest

from bench.contracts.draw_order import even_order, sub_grid
from bench.contracts.strategy import Ints
from bench.inputs.view_assignment import assign_evenly


def spread(turns: Ints, n: int) -> int:
    """How far the counts of the views are apart."""
    counts = np.bincount(turns, minlength=n)
    return int(counts.max() - counts.min())


@pytest.mark.parametrize(
    "n_draws", [1, 7, 20, 40, 100, 250, pytest.param(1000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("n", [2, 5, 7, 16])
def test_prefixes_and_even_sub_grids_are_balanced(n_draws: int, n: int) -> None:
    turns, order = assign_evenly(n_draws, n), even_order(n_draws)
    assert np.array_equal(turns, assign_evenly(n_draws, n))
    for size in range(1, n_draws + 1):
        assert spread(turns[order[:size]], n) <= 1
        if n_draws % size == 0:
            assert spread(turns[sub_grid(size, n_draws)], n) <= 1


@pytest.mark.parametrize("n_draws", [40, 250, 500])
@pytest.mark.parametrize("n", [2, 5, 16])
def test_other_sub_grids_and_ranges_of_levels_are_close_to_it(n_draws: int, n: int) -> None:
    turns = assign_evenly(n_draws, n)
    for size in range(1, n_draws + 1):
        near = 4 + 4.5 * (size / n) ** 0.5
        assert spread(turns[sub_grid(size, n_draws)], n) <= near
        assert spread(turns[:size], n) <= near


def test_stages_of_published_schedules_are_balanced() -> None:
    for stages, n_draws in (((20, 50, 100, 500), 500), ((25, 250), 250), ((50, 100, 500), 1000)):
        turns, seen = assign_evenly(n_draws, 5), np.zeros(n_draws, bool)
        for stage in stages:
            seen[sub_grid(stage, n_draws)] = True
            assert spread(turns[seen], 5) == 0


def test_it_is_the_same_everywhere() -> None:
    """A run's numbers depend on it: a change here is a change of every run with `--views`."""
    assert assign_evenly(12, 3).tolist() == [2, 2, 2, 0, 0, 1, 0, 1, 1, 2, 1, 0]
