"""The executor of Ray: workers in processes of their own, on this machine or a cluster.

The driver alone opens the store. It gives images to workers and yields what they decide; which
image is whose, and what is done again, is `dispatch`'s. Restarts are ours and not Ray's, since it
is images that must be done again, and not calls.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.discovery.stdout import set_aside
from bench.errors import BenchWarning, UserError, WorkersLostError
from bench.running.executors.cluster import Connection, connect, environment, nodes, plan_workers
from bench.running.executors.dispatch import Block, Dispatch, Loss, Rules
from bench.running.executors.worker import (
    Job,
    Opened,
    Place,
    Refused,
    Report,
    Worker,
    versions_used,
)

if TYPE_CHECKING:
    from bench.running.prepare import Prepared

logger = logging.getLogger("bench.workers")
SAID_EVERY = 10.0  # seconds between two lines about the workers' speed
PATIENCE = 120.0  # seconds after which it is said that no worker is ready
ENDED = {
    "OutOfMemoryError": "it ran out of memory",
    "NodeDiedError": "its machine is gone",
    "ActorUnschedulableError": "no machine has room for it",
}


@dataclass
class _Actor:
    """One worker, as the driver sees it.

    Attributes:
        handle: Ray's.
        stage: what it was asked last; "prepared" and "idle": nothing.
        place: where it is, once that is known.
    """

    handle: Any
    stage: str = "prepare"
    place: Place | None = None


class RayExecutor:
    """Scores with workers of Ray.

    Args:
        run: what is scored.

    Attributes:
        actors: the workers by name.
        dispatch: which image is whose; None before scoring.

    Raises:
        UserError: nobody answers at the address, or no worker can take part.
        WorkersLostError: the workers ended before one was ready.
    """

    device: str | None = None  # no speed of this process is worth remembering

    def __init__(self, run: Prepared) -> None:
        config = run.config
        self._run = run
        self.actors: dict[str, _Actor] = {}
        self._waiting: dict[Any, str] = {}  # reference → the worker that answers
        self._deaths: dict[str, int] = {}  # of workers that nothing was given yet
        self.dispatch: Dispatch | None = None
        self._opened: Opened | None = None
        self._refusals: list[str] = []
        self._memory: int | None = None
        self._since = self._said = monotonic()
        self._stdout = ExitStack()  # Ray prints what it has to say, and stdout is the command's
        self._connection: Connection | None = None
        self._stdout.enter_context(set_aside())
        try:
            self._connection = connect(config.ray_address, config.workers)
            own = config.ray_address is None
            self.layout = plan_workers(nodes(), config.workers, config.device, own)
            self._rules = Rules.of(self.layout.workers)
            self._job = replace(job_of(run), report_seconds=self._rules.block_seconds)
            for number in range(1, self.layout.workers + 1):
                self._start(f"worker {number}")
            while self._opened is None:
                self._expect_workers()
                list(self._step())
        except BaseException:
            self.close()
            raise
        self.problem = self._opened.problem
        self.levels: Levels | None = self._opened.levels
        self.fitted: Mapping[str, Any] | None = self._opened.fitted

    @property
    def peak_memory(self) -> int | None:
        """The most memory that one worker used so far, in bytes."""
        return self._memory

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided.

        Raises:
            WorkersLostError: no worker is left; the same command resumes.
        """
        self.dispatch = dispatch = Dispatch(sample_ids, self.actors, self._rules)
        while dispatch.left:
            self._expect_workers()
            for name, actor in self.actors.items():
                if actor.stage == "idle":
                    self._feed(name, hungry=True)
            yield from self._step()
        self._say_speeds()

    def wait_for_all(self) -> None:
        """Wait until every worker has loaded; scoring begins with the first one otherwise."""
        while any(actor.stage != "idle" for actor in self.actors.values()):
            list(self._step())

    def close(self) -> None:
        """End the workers, and Ray where it was started for them."""
        import ray

        for actor in self.actors.values():
            with suppress(Exception):
                ray.kill(actor.handle, no_restart=True)
        self.actors, self._waiting = {}, {}
        if self._connection is not None:
            self._connection.close()
        self._stdout.close()

    def _start(self, name: str) -> None:
        import ray

        made = ray.remote(Worker).options(
            num_cpus=self.layout.cpus,
            num_gpus=self.layout.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment(self.layout)},
        )
        actor = self.actors[name] = _Actor(made.remote(self._job))
        self._waiting[actor.handle.prepare.remote()] = name

    def _expect_workers(self) -> None:
        if self.actors:
            return
        if self._opened is None and self._refusals:
            raise UserError(self._refusals[0])
        raise WorkersLostError("No worker is left. The warnings above say why.")

    def _step(self) -> Iterator[Decided]:
        """Wait for answers, at most a second, and yield what they decide."""
        import ray

        references = list(self._waiting)
        if not references:
            return
        try:
            ready, _ = ray.wait(references, num_returns=1, timeout=1.0)
            if ready and len(references) > 1:
                ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        except ray.exceptions.RayError as error:
            raise WorkersLostError(f"Ray itself ended: {_reason(error)}.") from error
        for reference in ready:
            name = self._waiting.pop(reference)
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayError as error:
                yield from self._lost(name, _reason(error))
                continue
            yield from self._answered(name, answer)
        now = monotonic()
        if now - self._said >= SAID_EVERY:
            self._said = now
            self._say_speeds()
        placed = any(actor.place for actor in self.actors.values())
        if self._since and not placed and now - self._since >= PATIENCE:
            self._since = 0.0
            each = f"{self.layout.cpus} CPU" + (" and a GPU" if self.layout.gpus else "")
            _warn(f"No worker is ready after {PATIENCE:.0f} s. Each needs {each} that is free.")

    def _answered(self, name: str, answer: Place | Opened | Report | Refused) -> Iterator[Decided]:
        actor = self.actors[name]
        if isinstance(answer, Refused):
            self._refused(name, answer.said)
        elif isinstance(answer, Place):
            actor.place, actor.stage = answer, "prepared"
            logger.info("%s is ready to load.", self._called(name))
        elif isinstance(answer, Opened):
            self._opened = self._opened or answer
            actor.stage = "idle"
            logger.info("%s has loaded the model.", self._called(name))
        else:
            yield from self._reported(name, answer)
        self._open_prepared()

    def _open_prepared(self) -> None:
        """Let workers load: one first, which encodes the prompts, and then all others."""
        for name, actor in self.actors.items():
            first = any(other.stage == "open" for other in self.actors.values())
            if actor.stage == "prepared" and (self._opened is not None or not first):
                actor.stage = "open"
                self._waiting[actor.handle.open.remote()] = name

    def _reported(self, name: str, report: Report) -> Iterator[Decided]:
        assert self.dispatch is not None
        if report.peak_memory is not None:
            self._memory = max(self._memory or 0, report.peak_memory)
        by_id = {decided.sample.sample_id: decided for decided in report.decided}
        counted = self.dispatch.decided(name, tuple(by_id), monotonic())
        if report.refused is not None:
            self._refused(name, report.refused.said)
        elif report.idle and self.dispatch.holds(name):
            yield from self._lost(name, "it left images undecided")
        else:
            self._feed(name, report.hungry)
        for sample_id in counted:
            yield by_id[sample_id]

    def _feed(self, name: str, hungry: bool) -> None:
        """Give a worker more images if it has room, and ask for what it decides."""
        assert self.dispatch is not None and self._run.split is not None
        actor = self.actors[name]
        block = self.dispatch.give(name, monotonic()) if hungry else Block()
        if not self.dispatch.holds(name):
            actor.stage = "idle"
            return
        actor.stage = "score"
        contents = tuple(self._run.split.content(sample_id) for sample_id in block.ids)
        self._waiting[actor.handle.exchange.remote(block, contents)] = name

    def _lost(self, name: str, reason: str) -> Iterator[Decided]:
        """Start a worker again that ended; yield its images that ended too many."""
        called, actor = self._called(name), self.actors.pop(name)
        _kill(actor)
        if self.dispatch is None:
            self._deaths[name] = self._deaths.get(name, 0) + 1
            loss = Loss((), (), self._deaths[name] < self._rules.deaths)
        else:
            loss = self.dispatch.lost(name)
        then = "It is started again." if loss.restart else "It ended too often and is given up."
        again = len(loss.again)
        held = f" {again} image{'s' * (again != 1)} of it will be scored again." if again else ""
        _warn(f"{called} ended: {reason}.{held} {then}")
        if loss.restart:
            self._start(name)
        rules = self._rules
        for sample in self._run.samples(loss.failed):
            said = f"the worker that scored it ended {rules.together + rules.alone} times"
            yield Decided(sample, error=f"{said}, {rules.alone} times with this image alone")
        self._open_prepared()

    def _refused(self, name: str, said: str) -> None:
        """Go on without a worker that cannot take part."""
        self._refusals.append(f"{name} ({said}".replace(": ", "): ", 1))
        _warn(f"{self._refusals[-1]} The run goes on without it.")
        _kill(self.actors.pop(name))
        if self.dispatch is not None:
            self.dispatch.leave(name)

    def _called(self, name: str) -> str:
        place = self.actors[name].place
        return f"{name} ({place})" if place else name

    def _say_speeds(self) -> None:
        if self.dispatch is None:
            return
        for name in self.actors:
            speed = self.dispatch.speed(name)
            said = "no image yet" if speed is None else f"{speed:.2f} images/s"
            logger.info("%s: %s, holds %d", self._called(name), said, self.dispatch.holds(name))


def job_of(run: Prepared) -> Job:
    """Return what workers are told: settings, and what they must find."""
    here = {"executor": "local", "workers": None, "ray_address": None, "fresh": False}
    config = run.config.model_copy(update={**here, "shard": None})
    split = run.split
    assert split is not None
    return Job(
        settings=config.model_dump_json(),
        identity=json.dumps(run.manifest.identity.plain()),
        folder=str(Path.cwd()),
        versions=versions_used(run),
        surveyed=(split.fingerprint, split.decoding is None),
    )


def _kill(actor: _Actor) -> None:
    import ray

    with suppress(Exception):
        ray.kill(actor.handle, no_restart=True)


def _reason(error: Exception) -> str:
    """Return in a few words why a worker ended."""
    logger.debug("%s", error)
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        first = (str(cause).strip().splitlines() or [""])[0]
        return f"{type(cause).__name__}: {first}"
    for kind, said in ENDED.items():
        if type(error).__name__ == kind or kind in str(error):
            return said
    return "its process was ended from outside"


def _warn(said: str) -> None:
    warnings.warn(said, BenchWarning, stacklevel=3)
