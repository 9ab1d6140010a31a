"""A worker: prepares a run from its settings and scores the images that it is given.

It does not depend on Ray and runs in any process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, TypeVar

from bench.contracts.decision import Decided
from bench.engine.asking import Engine
from bench.errors import UserError, quoted
from bench.inputs.split import Split
from bench.machine.environment import peak_memory
from bench.machine.offline import offline
from bench.running.executors.job import (
    keep_texts,
    kept_texts,
    lacks_texts,
    prepare_job,
)
from bench.running.executors.messages import (
    Ended,
    Fetch,
    Job,
    Opened,
    Report,
    Texts,
    WorkerProcess,
)
from bench.running.question import PreparedRun

T = TypeVar("T")
CALLS = 4  # concurrent calls: two blocks, one for encoded prompts, and one to spare


class _Calls:
    """Executes calls in a daemon thread; a `ThreadPoolExecutor` would keep the process alive."""

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
    """Scores images of a run in one process: call `prepare`, `open`, then `score` for each block.

    `score` and `texts` may be called concurrently. Everything that uses torch runs in one dedicated
    thread, because OpenMP keeps a team of threads for each calling thread, and with more threads
    than cores they do not wait actively (a third of the speed on two cores).
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._torch = _Calls()
        self._offline = ExitStack()  # keeps `--offline` in force until the process ends
        self._prepared: PreparedRun | None = None
        self._changed = Condition()
        self._feed: dict[str, str] = {}  # ids that the engine has not taken yet → hash of content
        self._last = 0  # number of waiting calls with an empty block
        self._decided: list[Decided] = []
        self._failed: BaseException | None = None

    def prepare(self) -> WorkerProcess | Ended:
        """Prepare the run, and verify that it is the driver's."""
        try:
            prepared, differences = self._torch.call(lambda: prepare_job(self.job)).result()
        except Exception as error:
            return Ended.of(error)
        self._prepared = prepared
        self._offline.enter_context(offline(prepared.config.offline))
        return WorkerProcess(differences=differences)

    def open(self, fetch: Fetch | None = None) -> Opened | Ended:
        """Load the engine; `fetch` is called if encoded prompts are missing on this machine."""
        run = self._prepared
        assert run is not None, "prepare comes first"
        try:
            if lacks_texts(run) and fetch is not None:
                keep_texts(run, fetch())
            engine = self._torch.call(run.open_engine).result()
        except Exception as error:
            return Ended.of(error)
        self._torch.call(lambda: self._score(run, engine))
        fitted, warnings = getattr(engine, "fitted", None), getattr(engine, "warnings", ())
        return Opened(engine.problem, engine.levels, fitted, warnings)

    def texts(self) -> Texts:
        """Return the encoded prompts, for a worker without access to this cache folder."""
        assert self._prepared is not None, "prepare comes first"
        return kept_texts(self._prepared)

    def score(self, block: tuple[str, ...], contents: tuple[str, ...]) -> Report:
        """Queue images; return once the engine has taken them, with the decisions so far.

        With two calls at a time the engine has the next block before it needs it, and its batches
        stay full. An empty block means that no more images come for now; the call returns as soon
        as an image that the worker holds is decided. `contents` are the driver's
        `Split.hash_sample`.
        """
        with self._changed:
            self._feed.update(zip(block, contents, strict=True))
            self._last += not block
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    self._failed is not None
                    or (self._feed.keys().isdisjoint(block) if block else bool(self._decided))
                )
            )
            self._last -= not block
            decided, self._decided = tuple(self._decided), []
            end = Ended.of(self._failed, again=True) if self._failed else None
        return Report(decided, end, peak_memory())

    def _score(self, run: PreparedRun, engine: Engine) -> None:
        """Score until the process ends; an empty block ends one pass of the engine."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._feed)
            try:
                for decided in engine.score(run.samples(self._arriving(run.split)), run.strategy):
                    with self._changed:
                        self._decided.append(_without_images(decided, run.save_errors))
                        self._changed.notify_all()
            except BaseException as error:
                with self._changed:
                    self._failed = error
                    self._changed.notify_all()
                return

    def _arriving(self, split: Split) -> Iterator[str]:
        """Yield ids as they arrive, until none is left and a call with an empty block waits."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._feed or self._last)
                if not self._feed:
                    return
                sample_id = next(iter(self._feed))
                content = self._feed.pop(sample_id)
                self._changed.notify_all()
            if split.hash_sample(sample_id, read=True) != content:
                raise UserError(
                    f"{quoted(sample_id)} is not the driver's: its image, label or texts differ."
                )
            yield sample_id


def _without_images(decided: Decided, with_errors: bool) -> Decided:
    sample = replace(decided.sample, image={})
    if sample.item is not None:
        item = replace(sample.item, images=(None,) * len(sample.item.images))
        sample = replace(sample, item=item)
    if with_errors:
        return replace(decided, sample=sample)
    return replace(decided, sample=sample, cells=[], linearised=[])
