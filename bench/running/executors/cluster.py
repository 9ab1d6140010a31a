"""Connect to Ray or start it, and plan how many workers there are and what each gets."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Event, Thread, current_thread, main_thread
from time import monotonic
from typing import TYPE_CHECKING

from bench.errors import BenchError, UserError

if TYPE_CHECKING:
    from bench.running.settings import RunConfig

EXTRA = "pip install 'diffusion-classifier-bench[ray]'"
SOCKET_TIMEOUT = 5.0  # seconds until an address must accept a connection
CONNECT_TIMEOUT = 20.0  # seconds until an existing Ray must answer
LAUNCH_TIMEOUT = 120.0  # seconds until a new Ray must have started
POLL_INTERVAL = 2.0  # seconds between checks that Ray is alive
LOST_AFTER = 60.0  # seconds without an answer until Ray counts as lost
OBJECT_STORE = 100 * 2**20  # bytes; decisions are small, as may be a container's /dev/shm
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
RAY_VARIABLES = {  # settings of Ray that exist only as environment variables
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a deprecation warning
    "RAY_worker_niceness": "0",  # the default of 15 starves workers on a busy machine
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
PASSED_ON = (  # variables passed on to workers and Slurm jobs
    "BENCH_LOAD_PLUGINS",
    "BENCH_BLOCK_PLUGINS",
    "BENCH_STRICT_PLUGINS",
)


@dataclass(frozen=True)
class Node:
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


def check_executor(config: RunConfig) -> None:
    """Raise UserError if the executor is not installed or its settings do not fit it."""
    if config.executor == "local":
        return
    if find_spec("ray") is None:
        raise UserError(f"--executor ray needs the extra `ray`: {EXTRA}")
    if config.device is not None and ":" in config.device:
        kind = config.device.partition(":")[0]
        raise UserError(
            f"--device {config.device} names one device, but every Ray worker gets its own: use"
            f" --device {kind}."
        )
    if config.ray_address is not None and "://" in config.ray_address:
        raise UserError(
            f"--ray-address {config.ray_address}: Ray's client is not supported. Run this command"
            " on a machine of the cluster, with --ray-address auto or HOST:PORT."
        )


def plan_workers(
    nodes: Sequence[Node], workers: int | str | None, device: str | None, own: bool
) -> Layout:
    """Return the number of workers and the resources of each; every worker has one device.

    `workers` `auto` or None means one per GPU or, without GPUs, per machine; `device` None means
    GPUs if there are any. With `own`, this process started the cluster, which then does not grow.
    Raises UserError if there are no such devices, or fewer GPUs than workers.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if device not in (None, "cuda") or not gpus:
        if device == "cuda":
            raise UserError("--device cuda: the cluster has no GPU.")
        if workers in (None, "auto"):
            cores = max(1, min(node.cpus for node in nodes))
            return Layout(len(nodes), cores, 0, cores)
        count = int(workers or 1)
        cores = max(1, cpus // count)
        while cores > 1 and sum(node.cpus // cores for node in nodes) < count:
            cores -= 1
        return Layout(count, cores, 0, cores)
    count = gpus if workers in (None, "auto") else int(workers or 1)
    if own and count > gpus:
        raise UserError(f"--workers {count}: must be at most {gpus}, the number of GPUs.")
    return Layout(count, 1, 1, max(1, cpus // gpus))


def environment(layout: Layout) -> dict[str, str]:
    """Return the environment variables of a worker, to be set before it imports anything."""
    # All variables get one default, because torch uses MKL's number if it differs.
    default = os.environ.get("OMP_NUM_THREADS", str(layout.threads))
    threads = {name: os.environ.get(name, default) for name in THREADS}
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    others = {name: os.environ.get(name, value) for name, value in WORKER_DEFAULTS.items()}
    return {**threads, **passed, **others}


class Connection:
    """A connection to Ray, from `ray.init` to `ray.shutdown`.

    `ray.init` runs in a thread, where it leaves our signal handlers alone and can have a timeout.
    The thread lives as long as the connection, because the kernel kills what Ray started when the
    thread that started it ends. Meanwhile it polls whether Ray's node on this machine is alive: a
    node dies with its dashboard agent, after which no worker starts, without any exception.

    `failure` begins error messages. `options` are the arguments of `ray.init`; without any, the
    caller of the toolkit has connected already and will disconnect. Raises UserError if nothing
    answers within `limit` seconds, BenchError if Ray raised another exception.
    """

    def __init__(self, limit: float, failure: str, **options: object) -> None:
        self._tried, self._closing, self._over = Event(), Event(), Event()
        self._failed: BaseException | None = None
        self._options = options
        self._answered, self._dead = monotonic(), False
        Thread(target=self._hold, daemon=True).start()
        if not self._tried.wait(limit):
            raise UserError(f"{failure} within {limit:.0f} s.")
        error = self._failed
        if error is not None:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if isinstance(error, ConnectionError):
                raise UserError(f"{failure}: {first}")
            raise BenchError(f"{failure}: {type(error).__name__}: {first}")
        if current_thread() is main_thread():
            # Ray's own handlers, in C, abort the process on SIGTERM.
            for number in (signal.SIGINT, signal.SIGTERM):
                if (handler := signal.getsignal(number)) is not None:
                    signal.signal(number, handler)

    @property
    def lost(self) -> bool:
        """Whether the node is dead, or Ray has not answered for `LOST_AFTER` seconds."""
        return self._dead or monotonic() - self._answered > LOST_AFTER

    def close(self) -> None:
        """Disconnect, and stop Ray if it was started here."""
        import ray

        self._closing.set()
        if self._options:
            ray.shutdown()
        self._over.set()

    def _hold(self) -> None:
        import ray

        try:
            if self._options:
                ray.init(**self._options)
            here = ray.get_runtime_context().get_node_id()
        except BaseException as error:
            self._failed = error
            self._closing.set()
        self._answered = monotonic()
        self._tried.set()
        while not self._closing.wait(POLL_INTERVAL):
            with suppress(Exception):
                alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
                self._answered, self._dead = monotonic(), here not in alive
        self._over.wait()


def connect(address: str | None, workers: int | str | None) -> Connection:
    """Connect to Ray at `auto` or HOST:PORT; without an address, start it on this machine.

    A Ray that is started has at least as many CPUs as `workers`. If the caller of the toolkit has
    connected already, that connection is used. Raises UserError if the address is invalid or
    nothing answers there in time, BenchError if Ray failed.
    """
    for name, value in RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return Connection(CONNECT_TIMEOUT, "The connected Ray does not answer")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        macos = not hasattr(os, "sched_getaffinity")
        cores = os.cpu_count() or 1 if macos else len(os.sched_getaffinity(0))
        room = max(cores, workers if isinstance(workers, int) else 1)
        own = {"num_cpus": room, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        # "local" uses free ports; the fixed ports of two clusters on one machine would clash.
        return Connection(
            LAUNCH_TIMEOUT, "Ray did not start on this machine", address="local", **own, **quiet
        )
    failure = f"--ray-address {address}: no Ray cluster answers there"
    if address != "auto":  # Ray itself would retry an unreachable address for long
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal():
            raise UserError(
                f"--ray-address {address}: must be auto, or HOST:PORT of the cluster's head node."
            )
        try:
            socket.create_connection((host, int(port)), SOCKET_TIMEOUT).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"{failure}: {error}.") from None
    return Connection(CONNECT_TIMEOUT, failure, address=address, **quiet)


def nodes() -> list[Node]:
    """Return the machines of the cluster that are alive."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources]
