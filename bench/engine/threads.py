"""Adapt the number of torch's CPU threads to the load of other processes.

Every operation waits for its slowest thread. If other processes compete for the same cores, one of
the threads is usually not running, and the others wait for it, so fewer threads are faster.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import torch

CHOSEN_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
ADAPTS_EVERY = 2.0  # seconds between two changes
BUSY, QUIET = 0.2, 0.05  # shares of its time that a runnable thread waits for a core
WAITING = Path("/proc/thread-self/schedstat")  # nanoseconds running and waiting, of this thread


class Threads:
    """Halves the number of threads while they wait for cores, and doubles it again afterwards.

    The kernel reports the calling thread's waiting time, so load on cores that this process may not
    use does not count. The number is never changed if the user set it or the kernel reports none.
    """

    def __init__(self) -> None:
        self.most = torch.get_num_threads()
        self._fixed = self.most == 1 or any(name in os.environ for name in CHOSEN_BY_USER)
        self._next = 0.0  # on the monotonic clock; the first measurement is since the thread began
        self._before = (0, 0)

    def adapt(self) -> None:
        """Change the number of threads where it is time to, and the machine has changed."""
        now = monotonic()
        if self._fixed or now < self._next:
            return
        self._next = now + ADAPTS_EVERY
        try:
            running, waiting = map(int, WAITING.read_text().split()[:2])
        except (OSError, ValueError):
            self._fixed = True
            return
        ran, waited = running - self._before[0], waiting - self._before[1]
        self._before = running, waiting
        wanted = threads_for(torch.get_num_threads(), self.most, waited / max(1, ran + waited))
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)


def threads_for(threads: int, most: int, waiting: float) -> int:
    """Return how many threads to use next, where a thread waits for this share of its time."""
    if waiting > BUSY:
        return max(1, threads // 2)
    return min(most, 2 * threads) if waiting < QUIET else threads
