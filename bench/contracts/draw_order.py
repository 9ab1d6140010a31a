"""Which draws to request next: grids and orders that are spread evenly over the noise levels.

Draws are sorted by their level, so that evenly spread draw indices are evenly spread levels.
"""

import numpy as np

from bench.contracts.strategy import Ints


def timestep_grid(n_draws: int, n_timesteps: int) -> Ints:
    """Return the grid t_k = floor((k + 1/2) · T / N), int64 [N]: the middles of N equal strata.

    For T = 1000 and N = 500 it is 1, 3, …, 999, the reference implementation's grid. Unlike that
    one it reaches the last timesteps even if N does not divide T.
    """
    k = np.arange(n_draws, dtype=np.int64)
    return (2 * k + 1) * n_timesteps // (2 * n_draws)


def sub_grid(n: int, n_draws: int) -> Ints:
    """Return draw indices floor((j + 1/2) · N / n), evenly spread, int64 [min(n, N)]."""
    return timestep_grid(min(n, n_draws), n_draws)


def even_order(n_draws: int) -> Ints:
    """Return a permutation of the draws, int64 [N], whose prefixes are all spread evenly.

    It is the van der Corput sequence in base 2 (1935), 1/2, 1/4, 3/4, 1/8, …, of the next power of
    two, without the values beyond N and with draw 0 last. The prefixes of 1, 3, 7, … draws are even
    grids, and each longer prefix contains the shorter ones.
    """
    bits = max(1, (n_draws - 1).bit_length())
    count = np.arange(1, 2**bits + 1, dtype=np.int64) % 2**bits
    reversed_bits = np.zeros_like(count)
    for bit in range(bits):
        reversed_bits |= ((count >> bit) & 1) << (bits - 1 - bit)
    return np.asarray(reversed_bits[reversed_bits < n_draws])
