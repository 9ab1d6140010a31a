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
FORGETS = 0.8  # of what was seen of a worker's speed before, how much counts at the next report


@dataclass(frozen=True)
class DispatchRules:
    """How images are given out.

    Attributes:
        block_seconds: the work of one block.
        hold_seconds: the work that a worker may hold.
        together: workers that an image's block may end before the image is scored alone.
        alone: workers that an image may end alone before it has failed.
        deaths: times that a worker may end in a row, with no image decided between them, before it
            is given up.
    """

    block_seconds: float = 1.0
    hold_seconds: float = 60.0
    together: int = 2
    alone: int = 3
    deaths: int = 8

    @staticmethod
    def of(workers: int) -> DispatchRules:
        """Return the rules for so many workers: of many, each says something less often."""
        return DispatchRules(block_seconds=max(1.0, PACE * workers))


@dataclass(frozen=True)
class ImageBlock:
    """What a worker is given.

    Attributes:
        ids: the images; empty: none for now.
        last: whether nothing follows until all that the worker holds is decided.
    """

    ids: tuple[str, ...] = ()
    last: bool = False


@dataclass(frozen=True)
class Loss:
    """What became of the images of a worker that ended.

    Attributes:
        again: those that are scored again.
        failed: those that ended too many workers.
        restart: whether the worker is worth starting again.
    """

    again: tuple[str, ...]
    failed: tuple[str, ...]
    restart: bool


@dataclass
class _Worker:
    """A worker, as far as giving out images needs to know it.

    Attributes:
        held: the images that it has and has not decided, in the order given.
        closed: whether it was told that nothing follows for now.
        alone: whether it has an image that is scored alone.
        recent: images decided and seconds taken, the older ones counting less.
        deaths: how often it ended since it last decided an image.
        decided: images decided in all.
    """

    held: dict[str, None] = field(default_factory=dict)
    closed: bool = False
    alone: bool = False
    recent: tuple[float, float] = (0.0, 0.0)
    since: float = 0.0
    deaths: int = 0
    decided: int = 0

    @property
    def speed(self) -> float | None:
        """Images per second; None: not known yet."""
        images, seconds = self.recent
        return images / seconds if images and seconds > 0 else None


class Dispatch:
    """Gives images to workers until each is decided, or has failed.

    Args:
        ids: the images, each once.
        workers: the names of the workers that are expected.
        rules: how they are given out.

    Attributes:
        left: images that are not decided and have not failed.
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
        """Return a worker's images per second of late; None: not known yet."""
        return self._workers[worker].speed

    def give(self, worker: str, now: float) -> ImageBlock:
        """Return what a worker that has room is given; an empty block: nothing for now.

        Args:
            worker: its name.
            now: seconds on any clock that does not go back.
        """
        one = self._workers[worker]
        if one.closed:
            return ImageBlock()
        if not one.held:
            one.since = now
        # A worker that has just started is slow, and may be ended by what had ended it before: it
        # shows first, with other images, that it works.
        if self._for_one and (one.deaths == 0 or not self._pending):
            if not one.held:
                one.alone = True
                return self._given(one, [self._for_one.popleft()], last=True)
            emptying = sum(w.closed and not w.alone for w in self._workers.values())
            if emptying < len(self._for_one):
                return self._given(one, [], last=True)
        room = min(self._most(one) - len(one.held), len(self._pending))
        if room <= 0:
            return self._given(one, [], last=True) if one.held else ImageBlock()
        count = min(room, max(1, round((one.speed or 0) * self.rules.block_seconds)))
        ids = [self._pending.popleft() for _ in range(count)]
        return self._given(one, ids, last=count == room)

    def decided(self, worker: str, ids: Sequence[str], now: float) -> tuple[str, ...]:
        """Enter what a worker decided; return the images that count, each once in a run."""
        one = self._workers.get(worker)
        if one is None:
            return ()
        counted = tuple(name for name in dict.fromkeys(ids) if name in one.held)
        for name in counted:
            del one.held[name]
        images, seconds = one.recent
        one.recent = FORGETS * images + len(counted), FORGETS * seconds + now - one.since
        one.since = now
        self.left -= len(counted)
        if counted:
            one.deaths = 0
            one.decided += len(counted)
        if not one.held:
            one.closed = one.alone = False
        return counted

    def lost(self, worker: str) -> Loss:
        """Take the images back of a worker that ended, and say what becomes of them."""
        one = self._workers[worker]
        ids, again, failed = tuple(one.held), [], []
        for name in ids:
            ended = self._ended_alone if one.alone else self._ended
            ended[name] += 1
            if self._ended_alone[name] >= self.rules.alone:
                failed.append(name)
            else:
                again.append(name)
        self.left -= len(failed)
        self._take_back(again)
        deaths = one.deaths + 1
        if deaths >= self.rules.deaths:
            del self._workers[worker]
            return Loss(tuple(again), tuple(failed), restart=False)
        self._workers[worker] = _Worker(recent=one.recent, deaths=deaths, decided=one.decided)
        return Loss(tuple(again), tuple(failed), restart=True)

    def leave(self, worker: str) -> None:
        """Give up a worker, which is no fault of the images that it holds."""
        self._take_back(self._workers.pop(worker).held)

    def _take_back(self, ids: Iterable[str]) -> None:
        """Put images at the end, those that ended several workers among those scored alone."""
        for name in ids:
            alone = self._ended[name] >= self.rules.together
            (self._for_one if alone else self._pending).append(name)

    def _most(self, one: _Worker) -> int:
        """Return how many images a worker may hold: at first one, which shows its speed."""
        held = self.left - len(self._pending) - len(self._for_one)
        share = -(-(len(self._pending) + held) // len(self._workers))
        if len(self._workers) > 1:
            share = max(1, share // 2)
        timed = 1 if one.speed is None else max(1, int(one.speed * self.rules.hold_seconds))
        return min(share, timed)

    @staticmethod
    def _given(one: _Worker, ids: Sequence[str], last: bool) -> ImageBlock:
        one.held.update(dict.fromkeys(ids))
        one.closed = last
        return ImageBlock(tuple(ids), last)
