"""Ray: the connection, how many workers there are, and the workers, which are its actors.

Ray restarts nothing; the driver does, because images must be repeated, not calls.
"""

import logging
import os
import re
import signal
import socket
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread, current_thread, main_thread
from time import monotonic
from typing import Any, NamedTuple

from bench.discovery.finding import PLUGIN_VARIABLES
from bench.discovery.guard import one_line, stdout_to_stderr
from bench.errors import BenchError, UserError, WorkersLostError, refusing
from bench.machine.guest import at_work, borrow_variable
from bench.machine.libraries import ray
from bench_plugins.executors.worker import (
    Answer,
    Block,
    Ended,
    Fetch,
    Job,
    Texts,
    Worker,
    WorkerProcess,
)

logger = logging.getLogger("bench.workers")
SOCKET_TIMEOUT = 5.0  # seconds until an address must accept a connection
CONNECT_TIMEOUT = 20.0  # seconds until an existing Ray must answer
LAUNCH_TIMEOUT = 120.0  # seconds until a new Ray must have started
CLOSE_TIMEOUT = 30.0  # seconds until a connection must be closed
POLL_INTERVAL = 2.0  # seconds between checks that Ray is alive
LOST_AFTER = 40.0  # seconds without an answer until Ray is lost; after 60 it ends this process
OBJECT_STORE = 100 * 2**20  # bytes; decisions are small, and so may be /dev/shm in a container
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
RESUMES = "The same command resumes."
TOKENS = (
    " If the cluster uses token authentication, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or"
    " RAY_AUTH_TOKEN_PATH as on its machines."
)
RAY_VARIABLES = {  # settings of Ray that exist only as environment variables
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a deprecation warning
    "RAY_worker_niceness": "0",  # the default of 15 starves workers on a busy machine
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a call after `ray.shutdown` would start another Ray
    # The driver reports a worker that ended; Ray would repeat it in ten lines.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
}
WORKER_DEFAULTS = {  # defaults in the environment of a worker
    "GOMP_SPINCOUNT": "10000",
    # The engine runs in its own thread. If that has its own arena, glibc returns memory after each
    # batch, and page faults take about a fifth of the time on a CPU.
    "MALLOC_ARENA_MAX": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
CALLS = {"texts": 2}  # concurrent calls of a worker besides its answers and the next block
# Ray's text about an actor whose class could not be loaded, with the process and its machine.
NEVER_BEGAN = re.compile(r"in its creation task.*?pid=(?P<pid>\d+), ip=(?P<ip>[^,)]+)", re.DOTALL)
ENDED = {  # Ray's exception, also if another one names it → why a worker ended
    "OutOfMemoryError": "it ran out of memory",
    "NodeDiedError": "its machine left the cluster",
    "ActorUnschedulableError": "no machine has the resources for it",
}


class Node(NamedTuple):
    """Resources of one machine of the cluster."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Layout:
    """Number of workers, and the CPUs, GPUs (0 or 1) and torch threads of each."""

    workers: int
    cpus: int
    gpus: int
    threads: int


def plan_workers(
    nodes: Sequence[Node], workers: int | str | None, device: str | None, own: bool
) -> Layout:
    """Return the number of workers and the resources of each; every worker has one device.

    `workers` `auto` or None means one per GPU or, without GPUs, per machine; `device` None means
    GPUs if there are any. With `own`, this process started the cluster, which then does not grow.
    Raises UserError if there are no such devices, or fewer GPUs than workers.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    count = workers if isinstance(workers, int) else None
    if gpus and device in (None, "cuda"):
        if own and (count or 0) > gpus:
            raise UserError(f"--workers {count}: must be at most {gpus}, the number of GPUs.")
        return Layout(count or gpus, 1, 1, max(1, cpus // gpus))
    if device == "cuda":
        raise UserError("--device cuda: the cluster has no GPU.")
    cores = cpus // count if count else min(node.cpus for node in nodes)
    while count and cores > 1 and sum(node.cpus // cores for node in nodes) < count:
        cores -= 1  # because a worker cannot span machines
    cores = max(1, cores)
    return Layout(count or len(nodes), cores, 0, cores)


def environment(layout: Layout) -> dict[str, str]:
    """Return the environment variables of a worker, to be set before it imports anything."""
    # All variables get one default, because torch uses MKL's number if it differs.
    default = os.environ.get("OMP_NUM_THREADS", str(layout.threads))
    threads = {name: os.environ.get(name, default) for name in THREADS}
    passed = {name: os.environ[name] for name in PLUGIN_VARIABLES if name in os.environ}
    others = {name: os.environ.get(name, value) for name, value in WORKER_DEFAULTS.items()}
    return {**threads, **passed, **others}


class Connection:
    """A connection to Ray, from `ray.init` to `ray.shutdown`.

    Both run in a thread, where they can have a timeout, and which lives as long as the connection,
    because the kernel kills what Ray started when the thread that started it ends. Meanwhile it
    polls whether Ray's node on this machine is alive: a node dies with its dashboard agent, after
    which no worker starts, without any exception.

    `failure` begins error messages. `options` are the arguments of `ray.init`; without any, the
    caller of the toolkit has connected already and will disconnect. Raises UserError if nothing
    answers within `limit` seconds, BenchError if Ray raised another exception.
    """

    def __init__(self, limit: float, failure: str, **options: object) -> None:
        self._here: Future[str] = Future()  # id of the node on this machine
        self._closing, self._over = Event(), Event()
        self._options = options
        self._answered, self.is_dead = monotonic(), False
        Thread(target=self._hold, daemon=True).start()
        try:
            self._here.result(limit)
        except TimeoutError:
            self._closing.set()  # an answer that comes later finds nobody
            advice = TOKENS if options.get("address", "local") != "local" else ""
            raise UserError(f"{failure} within {limit:.0f} s.{advice}") from None
        except Exception as error:
            kind = UserError if isinstance(error, ConnectionError) else BenchError
            raise kind(f"{failure}: {type(error).__name__}: {one_line(error)}") from error
        except BaseException:  # a signal, maybe while Ray's handler was in force
            signal.alarm(0)
            raise
        finally:
            _restore_handlers()

    @property
    def silent(self) -> bool:
        """Whether Ray's control store has not answered for `LOST_AFTER` seconds."""
        return monotonic() - self._answered > LOST_AFTER

    def close(self) -> None:
        """Disconnect, and stop Ray if it was started here."""
        self._closing.set()
        if not self.silent:
            self._over.wait(CLOSE_TIMEOUT)
        _restore_handlers()

    def _hold(self) -> None:
        with at_work():  # what `connect` has set holds as long as the connection
            self._stay_connected()
        self._over.set()

    def _stay_connected(self) -> None:
        try:
            if self._options:
                ray.init(**self._options)
            here = ray.get_runtime_context().get_node_id()
        except BaseException as error:
            self._here.set_exception(error)
            return
        self._answered = monotonic()
        self._here.set_result(here)
        while not self._closing.wait(POLL_INTERVAL):
            with suppress(Exception):
                alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
                self._answered, self.is_dead = monotonic(), here not in alive
        if self._options:
            ray.shutdown()


def _restore_handlers() -> None:
    """Take back the signals that `ray.init` and `ray.shutdown` take.

    Ray's handler of SIGTERM calls ours, and aborts the process three seconds later by an alarm;
    after a shutdown, SIGTERM ends the process at once.
    """
    if current_thread() is main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


@at_work()
def connect(address: str | None, workers: int | str | None) -> Connection:
    """Connect to Ray at `auto` or HOST:PORT; without an address, start it on this machine.

    A Ray that is started has at least as many CPUs as `workers`. If the caller of the toolkit has
    connected already, that connection is used. Raises UserError if the address is invalid or
    nothing answers there in time, BenchError if Ray failed.
    """
    for name, value in RAY_VARIABLES.items():
        borrow_variable(name, os.environ.get(name, value))
    if ray.is_initialized():
        return Connection(CONNECT_TIMEOUT, "The connected Ray does not answer")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        macos = not hasattr(os, "sched_getaffinity")
        cores = (os.cpu_count() or 1) if macos else len(os.sched_getaffinity(0))
        room = max(cores, workers if isinstance(workers, int) else 1)
        own = {"num_cpus": room, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        # "local" uses free ports; the fixed ports of two clusters on one machine would clash.
        return Connection(
            LAUNCH_TIMEOUT, "Ray did not start on this machine", address="local", **own, **quiet
        )
    failure = f"--ray-address {address}: no Ray cluster answers there"
    if address != "auto":  # Ray itself would retry an unreachable address for long
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            raise UserError(
                f"--ray-address {address}: must be auto, or HOST:PORT of the cluster's head node."
            )
        with refusing(f"{failure}: ", OSError, OverflowError):
            socket.create_connection((host, int(port)), SOCKET_TIMEOUT).close()
    return Connection(CONNECT_TIMEOUT, failure, address=address, **quiet)


def nodes() -> list[Node]:
    """Return the machines of the cluster that are alive."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources]


class Actors:
    """At most `most` workers as actors of a connected Ray, each with the resources of `layout`."""

    count: int
    needs: str  # resources of one worker, as text

    def __init__(self, connection: Connection, layout: Layout, most: int) -> None:
        self._connection, self._layout = connection, layout
        self.count = min(layout.workers, most)
        self.needs = f"{layout.cpus} CPU" + (" and a GPU" if layout.gpus else "")
        self._actors: dict[str, Any] = {}
        self._streams: dict[Any, str] = {}  # stream of answers → the worker's name
        self._stdout = ExitStack()  # Ray prints messages, but stdout is for results
        self._stdout.enter_context(stdout_to_stderr())

    def start(self, name: str, job: Job, first: str | None) -> None:
        """Start a worker as soon as resources are free; it asks the `first` for encoded prompts."""
        actor_class = ray.remote(concurrency_groups=CALLS)(Worker).options(
            num_cpus=self._layout.cpus,
            num_gpus=self._layout.gpus,
            max_restarts=0,
            max_task_retries=0,  # a retry would repeat the whole stream of answers
            max_concurrency=2,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment(self._layout)},
        )
        fetch: Fetch | None = None if first is None else partial(_texts, self._actors[first])
        self._actors[name] = actor_class.remote(job, fetch)
        self._streams[self._actors[name].answers.remote()] = name

    def score(self, name: str, block: Block) -> None:
        """Call `score` of a worker without waiting."""
        self._actors[name].score.options(num_returns=0).remote(block)

    def end(self, name: str) -> None:
        """End a worker, even if it has already ended."""
        actor = self._actors.pop(name)
        self._streams = {key: other for key, other in self._streams.items() if other != name}
        with suppress(Exception):
            ray.kill(actor, no_restart=True)

    def answers(self) -> list[tuple[str, Answer]]:
        """Return the next answers after at most a second; WorkersLostError if Ray ended."""
        streams = list(self._streams)
        if self._connection.silent:  # also while workers answer, which do so without it
            raise WorkersLostError(f"Ray's control store does not answer. {RESUMES}")
        if not streams:
            return []
        try:
            ready, _ = ray.wait(streams, num_returns=1, timeout=1.0)
            if ready and len(streams) > 1:
                ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        except ray.exceptions.RayError as error:
            raise WorkersLostError(f"Ray ended: {_ended(error).reason}. {RESUMES}") from error
        if not ready and self._connection.is_dead:
            raise WorkersLostError(f"Ray on this machine ended. {RESUMES}")
        return [(self._streams[stream], _answer(stream)) for stream in ready]

    def close(self) -> None:
        """End the workers; without Ray's control store, they end with this process."""
        if not self._connection.silent:
            for name in tuple(self._actors):
                self.end(name)
        self._stdout.close()


def _texts(actor: Any, names: Collection[str]) -> Texts:
    """Return an actor's encoded prompts; empty if the actor has ended."""
    with suppress(ray.exceptions.RayError):
        call = actor.texts.options(concurrency_group="texts")
        texts: Texts = ray.get(call.remote(names))
        return texts
    return {}


def _answer(stream: Any) -> Answer:
    try:
        answer: Answer = ray.get(next(stream))
    except ray.exceptions.RayError as error:
        return _ended(error)
    return answer


def _ended(error: Exception) -> Ended:
    """Return why a worker ended: it could not load the toolkit, raised an error, or was killed."""
    text, cause = str(error), getattr(error, "cause", None)
    logger.debug("%s", text)
    if began := NEVER_BEGAN.search(text):
        reason = f"the toolkit cannot be loaded: {one_line(text.strip().splitlines()[-1])}."
        place = WorkerProcess(began["ip"], int(began["pid"]))
        return Ended(reason, UserError, place, again=False)
    if isinstance(cause, BaseException):
        return Ended(f"unexpected {type(cause).__name__}: {one_line(cause)}", BenchError)
    names = (type(error).__name__, text)
    reasons = (reason for kind, reason in ENDED.items() if any(kind in name for name in names))
    return Ended(next(reasons, "its process was killed"))
