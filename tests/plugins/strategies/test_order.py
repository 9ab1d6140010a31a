"""Orders of draws are permutations whose beginnings are spread evenly."""

import numpy as np
import pytest
from helpers.refusals import refused

from bench.contracts.draw_order import even_order as even
from bench.contracts.draw_order import timestep_grid
from bench_plugins.strategies.elimination import order_by_bands, timestep_means


def test_even_prefixes_are_even_grids() -> None:
    order = even(256)
    for k in (1, 2, 3, 4, 5):
        prefix = np.sort(order[: 2**k - 1])
        assert (prefix == 256 // 2**k * np.arange(1, 2**k)).all()


def test_bands_come_first_in_their_order() -> None:
    timesteps = timestep_grid(100, 1000)
    order = order_by_bands("600-699,100-149", timesteps)
    assert all(600 <= t <= 699 for t in timesteps[order[:10]])
    assert all(100 <= t <= 149 for t in timesteps[order[10:15]])


@pytest.mark.parametrize("bands", ["650", "a-b", "700-600", "", "1-2,", "1-2-3", "-5-10"])
def test_a_bad_order_is_refused(bands: str) -> None:
    with refused("order", kind=ValueError):
        order_by_bands(bands, timestep_grid(10, 1000))


def test_draws_of_a_timestep_come_together() -> None:
    timesteps = np.repeat(timestep_grid(8, 1000), 2)
    order = order_by_bands("400-600", timesteps)
    assert sorted(order.tolist()) == list(range(16))
    assert (timesteps[order][0::2] == timesteps[order][1::2]).all()
    assert set(timesteps[order][:4].tolist()) == {437, 562}


def test_means_by_timestep() -> None:
    values = np.array([[1.0, 3.0, 5.0, 7.0, 9.0]])
    means = timestep_means(values, np.array([10, 10, 20, 20, 30]))
    assert means.tolist() == [[2.0, 6.0, 9.0]]
