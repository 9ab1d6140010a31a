"""A worker: it prepares a run by itself from names and settings, and scores what it is given.

It knows nothing of Ray, and runs in any process. What it is sent and sends back is below: names,
settings and decisions, no backbone and no dataset.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from bench.contracts.decision import Decided, Engine
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.discovery.loading import load_plugins
from bench.errors import BenchError, UserError, quoted
from bench.machine.environment import peak_memory
from bench.running.executors.dispatch import Block

if TYPE_CHECKING:
    from bench.running.prepare import Prepared


T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What a worker is told of a run.

    Attributes:
        settings: `RunConfig` as JSON.
        identity: the run's identity, as JSON.
        folder: where the driver was started: relative paths begin there.
        versions: distribution → version of the toolkit and of the plugins that the run uses.
        surveyed: the fingerprint of all images, and whether all are ordinary.
        report_seconds: how long a decision is kept back at most.
    """

    settings: str
    identity: str
    folder: str
    versions: Mapping[str, str]
    surveyed: tuple[str, bool]
    report_seconds: float = 1.0


@dataclass(frozen=True)
class Place:
    """Where a worker is."""

    host: str
    process: int

    def __str__(self) -> str:
        return f"{self.host}, process {self.process}"


@dataclass(frozen=True)
class Refused:
    """Why a worker cannot take part; it says where."""

    said: str


@dataclass(frozen=True)
class Opened:
    """What a loaded engine is, as far as the driver needs it.

    Attributes:
        problem: what every image asks.
        levels: the model's noise levels, where it has any.
        fitted: what a backbone that learned says of the result.
    """

    problem: Problem
    levels: Levels | None
    fitted: Mapping[str, Any] | None


@dataclass(frozen=True)
class Report:
    """What a worker has decided since its last report.

    Attributes:
        decided: the decisions, without the images.
        hungry: whether it has room for more images.
        idle: whether it has nothing left to do.
        refused: why it decides no more; None: it does.
        peak_memory: bytes, the most that it used so far.
    """

    decided: tuple[Decided, ...] = ()
    hungry: bool = False
    idle: bool = False
    refused: Refused | None = None
    peak_memory: int | None = None


def here() -> Place:
    """Return where this process is."""
    return Place(socket.gethostname(), os.getpid())


def versions_used(prepared: Prepared) -> dict[str, str]:
    """Return distribution → version of what registered the parts of a run."""
    plugins, resolved = load_plugins(), prepared.resolved
    owners = [
        plugins.datasets.owner(resolved.dataset.name),
        plugins.backbones.owner(resolved.backbone.name),
        plugins.strategies.owner(resolved.strategy_spec.name),
        *([plugins.views.owner(resolved.views.spec.name)] if resolved.views else []),
    ]
    known = plugins.versions()
    return {name: known[name] for name in sorted({o for o in owners if o in known})}


class _Calls:
    """A thread that makes one call after the other. It ends with the process."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        Thread(target=self._run, daemon=True).start()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Return what the function will return, or raise."""
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

    Args:
        job: what it is told of the run.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._torch = _Calls()
        self._prepared: Prepared | None = None
        self._engine: Engine | None = None
        self._changed = Condition()
        self._feed: deque[tuple[str, str]] = deque()  # images with the hash of their content
        self._given = 0  # images of the last block
        self._closed = False  # whether what is in the feed is the last for now
        self._open = False  # whether the engine takes images
        self._decided: list[Decided] = []
        self._failed: BaseException | None = None
        self._reported = 0.0

    def prepare(self) -> Place | Refused:
        """Resolve and check the run here, and that it is the driver's."""
        try:
            self._torch.call(self._prepare).result()
        except BenchError as error:
            return Refused(f"{here()}: {error}")
        return here()

    def _prepare(self) -> None:
        from bench.running.prepare import prepare
        from bench.running.settings import RunConfig
        from bench.stats.differences import differing_identity
        from bench.store.identity import Identity

        with suppress(OSError):  # where it is not on this node, what is missing in it is named
            os.chdir(self.job.folder)
        _check_versions(self.job.versions)
        config = RunConfig.model_validate_json(self.job.settings)
        prepared = prepare(config, surveyed=self.job.surveyed)
        prepared.check()
        mine = prepared.manifest
        wanted = Identity.model_validate(json.loads(self.job.identity))
        drivers = mine.model_copy(update={"identity": wanted})
        if differs := differing_identity(mine, drivers):
            said = "; ".join(f"{name} is {a}, and {b} there" for name, (a, b) in differs.items())
            raise UserError(f"the run is not the driver's: {said}.")
        self._prepared = prepared

    def open(self) -> Opened | Refused:
        """Load what answers the strategy."""
        assert self._prepared is not None, "prepare comes first"
        try:
            self._engine = engine = self._torch.call(self._prepared.open_engine).result()
        except BenchError as error:
            return Refused(f"{here()}: {error}")
        self._torch.call(self._score)
        return Opened(engine.problem, engine.levels, getattr(engine, "fitted", None))

    def exchange(self, block: Block, contents: tuple[str, ...]) -> Report:
        """Take more images, and return when there is something to say.

        Args:
            block: the images.
            contents: of each, the hash that `Split.content` gives on the driver.

        Raises:
            Exception: what the engine raised that is no `BenchError`.
        """
        with self._changed:
            self._feed.extend(zip(block.ids, contents, strict=True))
            if block.ids:
                self._given, self._open = len(block.ids), True
            if block.ids or block.last:
                self._closed = block.last
            self._changed.notify_all()
            while not self._has_news():
                self._changed.wait(self.job.report_seconds / 4)
            self._reported = monotonic()
            decided, self._decided = tuple(self._decided), []
            failed, self._failed = self._failed, None
            hungry, idle = self._is_hungry(), not self._open
        if failed is not None and not isinstance(failed, BenchError):
            raise failed
        refused = None if failed is None else Refused(f"{here()}: {failed}")
        return Report(decided, hungry, idle, refused, peak_memory())

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
        return not self._closed and 2 * len(self._feed) <= self._given

    def _score(self) -> None:
        """Score what arrives until the process ends; once for all that is given up to a last."""
        assert self._prepared is not None and self._engine is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._feed)
            try:
                samples = self._prepared.samples(self._arriving())
                for decided in self._engine.score(samples, self._prepared.strategy):
                    with self._changed:
                        self._decided.append(_light(decided, self._prepared.save_errors))
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
        """Yield the images as they are given, until there are no more for now."""
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


def _check_versions(wanted: Mapping[str, str]) -> None:
    """Refuse plugins that are not here, or in another version.

    Raises:
        UserError: it says which.
    """
    plugins = load_plugins()
    known, failed = plugins.versions(), {p.distribution: p.error for p in plugins.loaded if p.error}
    for name, version in wanted.items():
        if name in failed:
            raise UserError(f"plugin {name} failed to load here: {failed[name]}.")
        if name not in known:
            raise UserError(f"plugin {name} {version} is not installed here.")
        if known[name] != version:
            raise UserError(f"plugin {name} is {known[name]} here, and {version} on the driver.")


def _light(decided: Decided, with_errors: bool) -> Decided:
    """Return a decision without the images, and without errors that nobody keeps."""
    sample = replace(decided.sample, image={})
    if sample.item is not None:
        item = replace(sample.item, images=(None,) * len(sample.item.images))
        sample = replace(sample, item=item)
    if with_errors:
        return replace(decided, sample=sample)
    return replace(decided, sample=sample, cells=[], linearised=[])
