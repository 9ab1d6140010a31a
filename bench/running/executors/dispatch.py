"""Which worker scores which images next, and what is done again where a worker ended.

Pure and deterministic: it knows ids, names of workers and the time that it is told, and nothing of
Ray, models or the store. The Ray executor, the tests and the simulation in `benchmarks/` use it.

A worker holds images that it was given and has not decided. It is given more in small blocks while
it works, so that its engine always has enough cells for full batches. What it may hold is bounded:
by the time that its images take, and by half of its fair share of what is left (factoring, Hummel
et al., CACM 1992), so that the last images are given one by one. At the bound a block is the last
one for now: the worker decides all that it holds, and then asks again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PACE = 0.01  # seconds of a block for each worker: some hundred answers per second for the driver
FORGETS = 0.8  # share of the earlier images and seconds that counts in a worker's speed


@dataclass(frozen=True)
class DispatchRules:
    """How images are given out.

    Attributes:
        block_seconds: the work of one block.
        hold_seconds: the work that a worker may hold.
        together: workers that may end with an image in a block before it is scored alone.
        alone: workers that may end with an image scored alone before it has failed.
        deaths: times that a worker may end without deciding an image before it is given up.
    """

    block_seconds: float = 1.0
    hold_seconds: float = 60.0
    together: int = 2
    alone: int = 3
    deaths: int = 8

    @staticmethod
    def of(workers: int) -> DispatchRules:
        """Return the rules for so many workers: the more there are, the larger a block."""
        return DispatchRules(block_seconds=max(1.0, PACE * workers))


@dataclass(frozen=True)
class ImageBlock:
    """The next images of a worker; `last`: none follow until it has decided all that it holds."""

    ids: tuple[str, ...] = ()
    last: bool = False


@dataclass(frozen=True)
class Loss:
    """The images of a worker that ended: scored again or failed; and whether to restart it."""

    again: tuple[str, ...]
    failed: tuple[str, ...]
    restart: bool


@dataclass
class _Worker:
    held: dict[str, None] = field(default_factory=dict)  # images not decided, in the order given
    closed: bool = False  # whether its block was the last for now
    alone: bool = False  # whether it has an image that is scored alone
    recent: tuple[float, float] = (0.0, 0.0)  # images and seconds, the older ones counting less
    since: float = 0.0
    deaths: int = 0  # since it last decided an image

    @property
    def speed(self) -> float | None:
        """Images per second; None before the first is decided."""
        images, seconds = self.recent
        return images / seconds if images and seconds > 0 else None


class Dispatch:
    """Gives distinct images to workers until each is decided, or has failed.

    Attributes:
        left: number of images that are not decided and have not failed.
    """

    def __init__(
        self, ids: Iterable[str], workers: Iterable[str], rules: DispatchRules = DispatchRules()
    ) -> None:
        self.rules = rules
        self._pending = deque(ids)
        self.left = len(self._pending)
        self._workers = {name: _Worker() for name in workers}
        self._for_one: deque[str] = deque()  # to be scored alone
        self._ended: Counter[str] = Counter()  # workers that ended with an image in a block
        self._ended_alone: Counter[str] = Counter()

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that are not given up."""
        return tuple(self._workers)

    def holds(self, worker: str) -> int:
        """Return how many images a worker holds."""
        return len(self._workers[worker].held)

    def speed(self, worker: str) -> float | None:
        """Return a worker's recent images per second; None before the first is decided."""
        return self._workers[worker].speed

    def give(self, worker: str, now: float) -> ImageBlock:
        """Return the next images of a worker that has room; an empty block: none for now.

        `now` is in seconds on any monotonic clock.
        """
        state = self._workers[worker]
        if state.closed:
            return ImageBlock()
        if not state.held:
            state.since = now
        # A worker that was started again first shows with other images that it works: it is slow
        # at the start, and may end again with the image that ended it before.
        if self._for_one and (state.deaths == 0 or not self._pending):
            if not state.held:
                state.alone = True
                return self._hand_out(state, [self._for_one.popleft()], last=True)
            emptying = sum(w.closed and not w.alone for w in self._workers.values())
            if emptying < len(self._for_one):
                return self._hand_out(state, [], last=True)
        room = min(self._most(state) - len(state.held), len(self._pending))
        if room <= 0:
            return self._hand_out(state, [], last=True) if state.held else ImageBlock()
        count = min(room, max(1, round((state.speed or 0) * self.rules.block_seconds)))
        ids = [self._pending.popleft() for _ in range(count)]
        return self._hand_out(state, ids, last=count == room)

    def decided(self, worker: str, ids: Sequence[str], now: float) -> tuple[str, ...]:
        """Enter what a worker decided; return the images that count, each once in a run."""
        state = self._workers.get(worker)
        if state is None:
            return ()
        counted = tuple(name for name in dict.fromkeys(ids) if name in state.held)
        for name in counted:
            del state.held[name]
        images, seconds = state.recent
        state.recent = FORGETS * images + len(counted), FORGETS * seconds + now - state.since
        state.since = now
        self.left -= len(counted)
        if counted:
            state.deaths = 0
        if not state.held:
            state.closed = state.alone = False
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
        self._workers[worker] = _Worker(recent=state.recent, deaths=deaths)
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
            (self._for_one if alone else self._pending).append(name)

    def _most(self, state: _Worker) -> int:
        """Return how many images a worker may hold: at first one, which shows its speed."""
        held = self.left - len(self._pending) - len(self._for_one)
        share = -(-(len(self._pending) + held) // len(self._workers))
        if len(self._workers) > 1:
            share = max(1, share // 2)
        timed = 1 if state.speed is None else max(1, int(state.speed * self.rules.hold_seconds))
        return min(share, timed)

    @staticmethod
    def _hand_out(state: _Worker, ids: Sequence[str], last: bool) -> ImageBlock:
        state.held.update(dict.fromkeys(ids))
        state.closed = last
        return ImageBlock(tuple(ids), last)
