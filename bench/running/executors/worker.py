"""A worker: prepares a run from names and settings, and scores the images it receives.

It knows nothing of Ray, and runs in any process.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue
from threading import Condition, Thread
from time import monotonic
from typing import Any, TypeVar

from bench.contracts.decision import Decided, Engine
from bench.discovery.guard import one_line
from bench.errors import BenchError, UserError, quoted
from bench.machine.environment import peak_memory
from bench.machine.offline import offline
from bench.running.executors.dispatch import ImageBlock
from bench.running.executors.job import (
    harmless_differences,
    keep_texts,
    kept_texts,
    lacks_texts,
    prepare_job,
)
from bench.running.executors.messages import (
    Ended,
    Fetch,
    Job,
    Lacking,
    Opened,
    Refused,
    Report,
    Texts,
    WorkerProcess,
)
from bench.running.model_run import ModelRun
from bench.running.prepared import Prepared, run_samples

T = TypeVar("T")


def here() -> WorkerProcess:
    """Return this machine and process."""
    return WorkerProcess(socket.gethostname(), os.getpid())


class _Calls:
    """A thread that makes one call after the other, and ends with the process.

    A thread of `ThreadPoolExecutor` would keep the process from ending.
    """

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        Thread(target=self._run, daemon=True).start()

    def call(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._waiting.put((function, future))
        return future

    def _run(self) -> None:
        while True:
            function, future = self._waiting.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


class Worker:
    """One process that scores images of a run: prepare, open, then exchange again and again.

    Its engine runs in a thread of its own, so that images can be added while it works. All that
    uses torch is done in this thread: OpenMP keeps a team of threads for each thread that calls it,
    and with more threads than cores none of them waits actively (a third of the speed on two
    cores).

    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._torch = _Calls()
        self._network = ExitStack()  # for the life of the process
        self._prepared: Prepared | None = None
        self._engine: Engine | None = None
        self._changed = Condition()
        self._feed: deque[tuple[str, str]] = deque()  # images with the hash of their content
        self._last_size = 0  # images of the last block
        self._closed = False  # whether nothing follows the feed for now
        self._open = False  # whether the engine takes images
        self._decided: list[Decided] = []
        self._failed: BaseException | None = None
        self._reported = 0.0

    def prepare(self) -> WorkerProcess | Refused:
        """Resolve and check the run, and that it is the driver's."""
        try:
            self._prepared = self._torch.call(lambda: prepare_job(self.job)).result()
        except Exception as error:
            return Refused.of(here(), error)
        self._network.enter_context(offline(self._prepared.config.offline))
        return replace(here(), differences=harmless_differences(self.job))

    def open(self, fetch: Fetch | None = None, encode: bool = True) -> Opened | Lacking | Refused:
        """Load the engine.

        Args:
            fetch: returns the encoded prompts of another worker; called where this one has none.
            encode: whether to encode prompts that are missing.
        """
        assert self._prepared is not None, "prepare comes first"
        try:
            if lacks_texts(self._prepared):
                if not encode:
                    return Lacking()
                if fetch is not None:
                    keep_texts(self._prepared, fetch())
            self._engine = engine = self._torch.call(ModelRun(self._prepared).open_engine).result()
        except Exception as error:
            return Refused.of(here(), error)
        self._torch.call(self._score)
        return Opened(engine.problem, engine.levels, getattr(engine, "fitted", None))

    def texts(self) -> Texts:
        """Return the encoded prompts, for a worker that shares no cache folder with this one."""
        assert self._prepared is not None, "prepare comes first"
        return kept_texts(self._prepared)

    def exchange(self, block: ImageBlock, contents: tuple[str, ...]) -> Report:
        """Take more images, and return when there is something to report.

        `contents` holds for each image the hash that `Split.content` gives on the driver.
        """
        with self._changed:
            self._feed.extend(zip(block.ids, contents, strict=True))
            if block.ids:
                self._last_size, self._open = len(block.ids), True
            if block.ids or block.last:
                self._closed = block.last
            self._changed.notify_all()
            while not self._has_news():
                self._changed.wait(self.job.report_seconds / 4)
            self._reported = monotonic()
            decided, self._decided = tuple(self._decided), []
            failed, self._failed = self._failed, None
            hungry, idle = self._is_hungry(), not self._open
        return Report(decided, hungry, idle, _end_of(failed), peak_memory())

    def _has_news(self) -> bool:
        waited = monotonic() - self._reported
        return (
            self._failed is not None
            or self._is_hungry()
            or (bool(self._decided) and waited >= self.job.report_seconds)
        )

    def _is_hungry(self) -> bool:
        if not self._open:  # nothing is under way
            return True
        return not self._closed and 2 * len(self._feed) <= self._last_size

    def _score(self) -> None:
        """Score until the process ends; the engine runs once per series of blocks up to a last."""
        assert self._prepared is not None and self._engine is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._feed)
            try:
                samples = run_samples(self._prepared, self._arriving())
                for decided in self._engine.score(samples, self._prepared.strategy):
                    with self._changed:
                        self._decided.append(_light(decided, self._prepared.config.save_errors))
                        self._changed.notify_all()
            except BaseException as error:
                with self._changed:
                    self._failed = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._open = bool(self._feed)
                self._changed.notify_all()

    def _arriving(self) -> Iterator[str]:
        """Yield images as they arrive, until there are no more for now."""
        assert self._prepared is not None and self._prepared.split is not None
        while True:
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._feed or self._closed)
                if not self._feed:
                    return
                sample_id, content = self._feed.popleft()
            if self._prepared.split.content(sample_id, read=True) != content:
                raise UserError(
                    f"{quoted(sample_id)} is not the driver's: image, label or texts differ."
                )
            yield sample_id


def _end_of(error: BaseException | None) -> Refused | Ended | None:
    if error is None:
        return None
    if isinstance(error, BenchError):
        return Refused.of(here(), error)
    return Ended(f"{type(error).__name__}: {one_line(error)}", raised=True)


def _light(decided: Decided, with_errors: bool) -> Decided:
    """Return a decision without the images, and without errors that are not kept."""
    sample = replace(decided.sample, image={})
    if sample.item is not None:
        item = replace(sample.item, images=(None,) * len(sample.item.images))
        sample = replace(sample, item=item)
    if with_errors:
        return replace(decided, sample=sample)
    return replace(decided, sample=sample, cells=[], linearised=[])
