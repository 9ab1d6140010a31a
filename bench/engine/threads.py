"""How many threads torch uses on a CPU that other processes use as well.

Every operation waits for its slowest thread. Where other processes want the same cores, one of the
threads is mostly not running, and the others spin or sleep until it is: one thread is then faster.
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
    """Fewer threads while a thread must wait for a core, and all of them again while it need not.

    How long it waits is the kernel's count for this thread, so that the work of others on cores
    that this process may not use does not matter. A number that the user chose stays, and so does
    the number where the kernel does not count.
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
