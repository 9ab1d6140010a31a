"""Which worker scores which images next, and what is done again where a worker ended.

Pure and deterministic: it knows ids, names of workers and a clock, and nothing of Ray, models or
the store. The Ray executor, the tests and the simulation in `benchmarks/` use it.

A block has as many images as a worker decides in a second, `MAX_BLOCK` at most. What a worker holds
is at most half of its fair share of what is left (factoring, Hummel et al., CACM 1992), so that the
last images are given one by one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAX_BLOCK = 32  # images
PACE = 0.01  # seconds of a block per worker: some hundred answers per second for the driver


@dataclass(frozen=True)
class DispatchRules:
    """How images are given out.

    Attributes:
        block_seconds: the work of one block.
        together: workers that may end with an image among others before it is scored alone.
        alone: workers that may end with an image scored alone before it has failed.
        deaths: times that a worker may end without deciding an image before it is given up.
    """

    block_seconds: float = 1.0
    together: int = 2
    alone: int = 3
    deaths: int = 8

    @staticmethod
    def of(workers: int) -> DispatchRules:
        """Return the rules for so many workers: the more there are, the larger a block."""
        return DispatchRules(block_seconds=max(1.0, PACE * workers))


@dataclass(frozen=True)
class Loss:
    """The images of a worker that ended: scored again or failed; and whether to restart it."""

    again: tuple[str, ...]
    failed: tuple[str, ...]
    restart: bool


@dataclass
class _Worker:
    held: dict[str, None] = field(default_factory=dict)  # images that it has not decided
    alone: bool = False  # whether it has an image that is scored alone
    emptying: bool = False  # whether it decides what it holds, to take such an image
    since: float | None = None  # start of its first block
    images: int = 0  # number decided
    seconds: float = 0.0  # from `since` to its last decision
    deaths: int = 0  # since it last decided an image


class Dispatch:
    """Gives distinct images to workers until each is decided, or has failed.

    Attributes:
        left: number of images that are not decided and have not failed.
    """

    def __init__(
        self, ids: Iterable[str], workers: Iterable[str], rules: DispatchRules = DispatchRules()
    ) -> None:
        self.rules = rules
        self._pending: deque[str] = deque()
        self.left = 0
        self.add(ids)
        self._workers = {name: _Worker() for name in workers}
        self._suspects: deque[str] = deque()  # images to be scored alone
        self._ended: Counter[str] = Counter()  # workers that ended with an image among others
        self._ended_alone: Counter[str] = Counter()

    def add(self, ids: Iterable[str]) -> None:
        """Add images that were not added before."""
        before = len(self._pending)
        self._pending.extend(ids)
        self.left += len(self._pending) - before

    def holds(self, worker: str) -> int:
        """Return how many images a worker holds."""
        return len(self._workers[worker].held)

    def speed(self, worker: str) -> float | None:
        """Return a worker's images per second; None before the first is decided."""
        state = self._workers[worker]
        return state.images / state.seconds if state.images and state.seconds > 0 else None

    def give(self, worker: str, now: float) -> tuple[str, ...]:
        """Return the next images of a worker; none: it has enough, or nothing is pending.

        `now` is in seconds on any monotonic clock.
        """
        state = self._workers[worker]
        # A worker that was started again first shows with other images that it works: it may end
        # again with the image that ended it before.
        if self._suspects and not state.alone and (state.deaths == 0 or not self._pending):
            if not state.held:
                state.emptying, state.alone = False, True
                return self._hand_out(state, [self._suspects.popleft()], now)
            emptying = sum(other.emptying for other in self._workers.values())
            state.emptying |= emptying < len(self._suspects)
        if state.alone or (state.emptying and self._suspects):
            return ()
        state.emptying = False
        share = -(-self.left // len(self._workers))
        most = share if len(self._workers) == 1 else max(1, share // 2)
        timed = max(1, round((self.speed(worker) or 0) * self.rules.block_seconds))
        count = min(most - len(state.held), timed, MAX_BLOCK, len(self._pending))
        return self._hand_out(state, [self._pending.popleft() for _ in range(count)], now)

    def decided(self, worker: str, ids: Sequence[str], now: float) -> tuple[str, ...]:
        """Enter what a worker decided; return the images that count, each once in a run."""
        state = self._workers.get(worker)
        if state is None:
            return ()
        counted = tuple(name for name in dict.fromkeys(ids) if name in state.held)
        for name in counted:
            del state.held[name]
        if counted:
            state.images, state.deaths = state.images + len(counted), 0
            state.seconds = now - (now if state.since is None else state.since)
            self.left -= len(counted)
        if not state.held:
            state.alone = False
        return counted

    def lost(self, worker: str) -> Loss:
        """Take the images back of a worker that ended, and say what becomes of them."""
        state = self._workers[worker]
        (self._ended_alone if state.alone else self._ended).update(list(state.held))
        failed = tuple(n for n in state.held if self._ended_alone[n] >= self.rules.alone)
        again = tuple(name for name in state.held if name not in failed)
        self.left -= len(failed)
        self._take_back(again)
        deaths = state.deaths + 1
        self._workers[worker] = _Worker(deaths=deaths)
        if deaths >= self.rules.deaths:
            del self._workers[worker]
        return Loss(again, failed, restart=worker in self._workers)

    def leave(self, worker: str) -> None:
        """Give up a worker, which is no fault of the images that it holds."""
        self._take_back(self._workers.pop(worker).held)

    def _take_back(self, ids: Iterable[str]) -> None:
        """Put images at the end, those that ended several workers among those scored alone."""
        for name in ids:
            alone = self._ended[name] >= self.rules.together
            (self._suspects if alone else self._pending).append(name)

    @staticmethod
    def _hand_out(state: _Worker, ids: Sequence[str], now: float) -> tuple[str, ...]:
        state.held.update(dict.fromkeys(ids))
        state.since = now if state.since is None else state.since
        return tuple(ids)
