"""Ray actors as workers: start, call, wait for and end them.

Ray restarts nothing; the driver does, because images must be repeated, not calls.
"""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.discovery.guard import one_line, stdout_to_stderr
from bench.errors import BenchError, UserError, WorkersLostError
from bench.running.executors.cluster import Connection, connect, environment, nodes, plan_workers
from bench.running.executors.messages import (
    Answer,
    Ended,
    Fetch,
    Job,
    Texts,
    WorkerProcess,
)
from bench.running.executors.worker import CALLS, Worker

if TYPE_CHECKING:
    from bench.running.settings import RunConfig

logger = logging.getLogger("bench.workers")
NEVER_BEGAN = re.compile(r"in its creation task.*?pid=(?P<pid>\d+), ip=(?P<ip>[^,)]+)", re.DOTALL)
ENDED = {
    "OutOfMemoryError": "it ran out of memory",
    "NodeDiedError": "its machine left the cluster",
    "ActorUnschedulableError": "no machine has the resources for it",
}


class Actors:
    """At most `most` workers as Ray actors; raises the errors of `connect` and `plan_workers`."""

    count: int
    needs: str  # resources of one worker, as text

    def __init__(self, config: RunConfig, most: int) -> None:
        self._actors: dict[str, Any] = {}
        self._waiting: dict[Any, str] = {}  # reference → the worker that answers
        self._stdout = ExitStack()  # Ray prints messages, but stdout is for results
        self._connection: Connection | None = None
        self._stdout.enter_context(stdout_to_stderr())
        try:
            workers, address = config.workers, config.ray_address
            workers = min(workers, most) if isinstance(workers, int) else workers
            self._connection = connect(address, workers)
            self._layout = plan_workers(nodes(), workers, config.device, own=address is None)
        except BaseException:
            self.close()
            raise
        self.count = min(self._layout.workers, most)
        self.needs = f"{self._layout.cpus} CPU" + (" and a GPU" if self._layout.gpus else "")

    def start(self, name: str, job: Job) -> None:
        """Start a worker as soon as resources are free; its calls wait until it has started."""
        import ray

        made = ray.remote(Worker).options(
            num_cpus=self._layout.cpus,
            num_gpus=self._layout.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=CALLS,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment(self._layout)},
        )
        self._actors[name] = made.remote(job)

    def call(self, name: str, method: str, *arguments: object) -> None:
        """Call a worker's method without waiting; `answers` returns the reply."""
        self._waiting[getattr(self._actors[name], method).remote(*arguments)] = name

    def texts_of(self, name: str) -> Fetch:
        """Return a function with which another worker can fetch this worker's encoded prompts."""
        return partial(_texts, self._actors[name])

    def end(self, name: str) -> None:
        """End a worker, even if it has already ended."""
        import ray

        actor = self._actors.pop(name)
        self._waiting = {key: other for key, other in self._waiting.items() if other != name}
        with suppress(Exception):
            ray.kill(actor, no_restart=True)

    def answers(self) -> list[tuple[str, Answer]]:
        """Return workers' replies after at most a second; raises WorkersLostError if Ray ended."""
        import ray

        references = list(self._waiting)
        if not references:
            return []
        try:
            ready, _ = ray.wait(references, num_returns=1, timeout=1.0)
            if ready and len(references) > 1:
                ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        except ray.exceptions.RayError as error:
            raise WorkersLostError(f"Ray ended: {_ended(error).reason}.") from error
        if not ready and self._connection is not None and self._connection.lost:
            raise WorkersLostError("Ray on this machine ended. The same command resumes.")
        return [(self._waiting.pop(reference), _answer(reference)) for reference in ready]

    def close(self) -> None:
        """End the workers, and Ray if it was started for them."""
        for name in list(self._actors):
            self.end(name)
        if self._connection is not None:
            self._connection.close()
        self._stdout.close()


def _texts(actor: Any) -> Texts:
    """Return an actor's encoded prompts; empty if the actor has ended."""
    import ray

    with suppress(ray.exceptions.RayError):
        texts: Texts = ray.get(actor.texts.remote())
        return texts
    return {}


def _answer(reference: Any) -> Answer:
    import ray

    try:
        answer: Answer = ray.get(reference)
    except ray.exceptions.RayError as error:
        return never_began(str(error)) or _ended(error)
    return answer


def never_began(message: str) -> Ended | None:
    """Return why a worker's process cannot load the toolkit; None if the message is another."""
    process = NEVER_BEGAN.search(message)
    if process is None:
        return None
    last = message.strip().splitlines()[-1].strip()
    place = WorkerProcess(process["ip"], int(process["pid"]))
    reason = f"the toolkit cannot be loaded: {one_line(last)}."
    return Ended(reason, UserError.exit_code, place, again=False)


def _ended(error: Exception) -> Ended:
    logger.debug("%s", error)
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        reason = f"unexpected {type(cause).__name__}: {one_line(cause)}"
        return Ended(reason, BenchError.exit_code)
    for kind, reason in ENDED.items():
        if type(error).__name__ == kind or kind in str(error):
            return Ended(reason)
    return Ended("its process was killed")
