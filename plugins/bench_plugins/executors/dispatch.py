"""Scheduling: which worker scores which images next, and what is repeated after one has ended.

Pure and deterministic: it handles ids, names of workers and times, and does not depend on Ray,
models or the store. The Ray executor, the tests and the simulation in `benchmarks/` use it.

A block has as many images as a worker decides in a second, `MAX_BLOCK` at most. A worker holds at
most half of its fair share of the remaining images (factoring, Hummel et al., CACM 1992), so that
the last images are handed out one by one.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Self

MAX_BLOCK = 32  # images
PACE = 0.01  # seconds of a block per worker, so that the driver gets about 100 answers per second


@dataclass(frozen=True)
class DispatchRules:
    """Limits for handing out and repeating images."""

    block_seconds: float = 1.0  # work of one block
    together: int = 2  # workers lost while holding an image, after which it is scored alone
    alone: int = 3  # workers lost while scoring an image alone at the end, after which it fails
    deaths: int = 8  # times that a worker ends without a decision, after which it is given up

    @classmethod
    def of(cls, workers: int) -> Self:
        """Return the rules for a number of workers; more workers get larger blocks."""
        return cls(block_seconds=max(1.0, PACE * workers))


@dataclass
class _Worker:
    held: dict[str, None] = field(default_factory=dict)  # ids of its undecided images, in order
    since: float | None = None  # time of its first block
    images: int = 0  # number of images decided
    seconds: float = 0.0  # from `since` to its last decision
    deaths: int = 0  # times that it ended since it last decided an image


class Dispatch:
    """Hands out images to workers until every image is decided or has failed."""

    def __init__(
        self, ids: Iterable[str], workers: Iterable[str], rules: DispatchRules = DispatchRules()
    ) -> None:
        self.rules = rules
        self._pending: deque[str] = deque()
        self.left = 0  # images that are neither decided nor failed
        self.add(ids)
        self._workers = {name: _Worker() for name in workers}
        self._suspects: deque[str] = deque()  # images to be scored alone, after all others
        self._ended: Counter[str] = Counter()  # image → workers that ended with it

    def add(self, ids: Iterable[str]) -> None:
        """Add new images; their ids must be distinct from all added before."""
        before = len(self._pending)
        self._pending.extend(ids)
        self.left += len(self._pending) - before

    def holds(self, worker: str) -> int:
        """Return the number of undecided images of a worker."""
        return len(self._workers[worker].held)

    def speed(self, worker: str) -> float | None:
        """Return a worker's images per second; None before its first decision."""
        state = self._workers[worker]
        return state.images / state.seconds if state.images and state.seconds > 0 else None

    def give(self, worker: str, now: float) -> tuple[str, ...]:
        """Return a worker's next images, maybe none; `now` is in seconds of any monotonic clock."""
        state = self._workers[worker]
        if not self._pending and self._suspects and not state.held:
            ids = [self._suspects.popleft()]
        elif not self._pending or any(map(self._is_suspect, state.held)):
            return ()
        else:
            share = ceil(self.left / len(self._workers))
            most_held = share if len(self._workers) == 1 else max(1, share // 2)
            timed = max(1, round((self.speed(worker) or 0) * self.rules.block_seconds))
            count = min(most_held - len(state.held), timed, MAX_BLOCK, len(self._pending))
            ids = [self._pending.popleft() for _ in range(count)]
        state.held.update(dict.fromkeys(ids))
        state.since = now if state.since is None else state.since
        return tuple(ids)

    def decided(self, worker: str, ids: Sequence[str], now: float) -> tuple[str, ...]:
        """Register a worker's decisions; return the ids that count, each only once per run."""
        state = self._workers.get(worker)
        if state is None:
            return ()
        counted = tuple(image for image in dict.fromkeys(ids) if image in state.held)
        for image in counted:
            del state.held[image]
        if counted:
            assert state.since is not None, "images are held since `give`"
            state.images, state.seconds = state.images + len(counted), now - state.since
            state.deaths = 0
            self.left -= len(counted)
        return counted

    def lost(self, worker: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
        """Take back the images of a worker that ended.

        Returns those to be scored again, those that have failed, and whether to restart the worker.
        """
        state, limit = self._workers.pop(worker), self.rules.together + self.rules.alone
        self._ended.update(list(state.held))
        failed = tuple(image for image in state.held if self._ended[image] >= limit)
        again = tuple(image for image in state.held if image not in failed)
        self.left -= len(failed)
        self._take_back(again)
        deaths = 0 if failed else state.deaths + 1  # an image that fails is to blame
        restart = deaths < self.rules.deaths
        if restart:
            self._workers[worker] = _Worker(deaths=deaths)
        return again, failed, restart

    def leave(self, worker: str) -> None:
        """Give up a worker without blaming the images that it holds."""
        self._take_back(self._workers.pop(worker).held)

    def _is_suspect(self, image: str) -> bool:
        return self._ended[image] >= self.rules.together

    def _take_back(self, ids: Iterable[str]) -> None:
        """Queue images again; those that several workers ended with will be scored alone."""
        for image in ids:
            if self._is_suspect(image):
                self._suspects.appendleft(image)
            else:
                self._pending.append(image)
