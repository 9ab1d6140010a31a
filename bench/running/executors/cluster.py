"""Finding or starting Ray, and how many workers fit where."""

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
ANSWERS_WITHIN = 5.0  # seconds in which an address takes a connection
CONNECTS = 20.0  # seconds in which Ray is there
STARTS = 120.0  # seconds in which a Ray of our own has started
LOOKS_EVERY = 2.0  # seconds between two questions whether Ray is still there
SILENT = 60.0  # seconds without an answer after which it is not
OBJECT_STORE = 100 * 2**20  # bytes; decisions are small, and a container's /dev/shm may be
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
RAY_VARIABLES = {  # of Ray, in the environment alone
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns of a change to come
    "RAY_worker_niceness": "0",  # 15 by default: a worker would starve beside other work
    # The driver says which worker ended and what it held; Ray says so once more, in ten lines.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
}
WORKERS_OWN = {  # of a worker's environment, where the user has set nothing else
    "GOMP_SPINCOUNT": "10000",
    # The engine has a thread of its own. With an arena of its own as well, glibc gives memory back
    # after each batch, and page faults take about a fifth of the time on a CPU.
    "MALLOC_ARENA_MAX": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
PASSED_ON = (  # to workers, and to the jobs of Slurm
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
    """Number of workers, and what each takes: CPUs, 0 or 1 GPU, threads of torch."""

    workers: int
    cpus: int
    gpus: int
    threads: int


def check_executor(config: RunConfig) -> None:
    """Refuse settings of an executor that is not installed or not chosen (UserError)."""
    if config.executor == "local":
        for name in ("workers", "ray_address"):
            if getattr(config, name) is not None:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is for workers of Ray: add --executor ray.")
        return
    if find_spec("ray") is None:
        raise UserError(f"--executor ray needs the extra `ray`: {EXTRA}")
    if config.device is not None and ":" in config.device:
        kind = config.device.partition(":")[0]
        raise UserError(
            f"--device {config.device} names one device, and each worker of Ray gets one of its"
            f" own: write --device {kind}."
        )
    if config.ray_address is not None and "://" in config.ray_address:
        raise UserError(
            f"--ray-address {config.ray_address}: Ray's client is not supported. Start this command"
            " on a machine of the cluster, with --ray-address auto or HOST:PORT."
        )


def plan_workers(
    nodes: Sequence[Node], workers: int | str | None, device: str | None, own: bool
) -> Layout:
    """Return how many workers there are, and what each takes: one device each.

    Args:
        nodes: the machines of the cluster.
        workers: the user's; `auto` or None: one per GPU, and without any, one per machine.
        device: the kind of device that the user wants.
        own: whether this process starts the cluster, which then does not grow.

    Raises:
        UserError: there are no such devices, or fewer than workers.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if device not in (None, "cuda") or not gpus:
        if device == "cuda":
            raise UserError("--device cuda: no machine of the cluster has a GPU.")
        if workers in (None, "auto"):
            cores = max(1, min(node.cpus for node in nodes))
            return Layout(len(nodes), cores, 0, cores)
        wanted = int(workers or 1)
        cores = max(1, cpus // wanted)
        while cores > 1 and sum(node.cpus // cores for node in nodes) < wanted:
            cores -= 1
        return Layout(wanted, cores, 0, cores)
    wanted = gpus if workers in (None, "auto") else int(workers or 1)
    if own and wanted > gpus:
        raise UserError(f"--workers {wanted}: each takes a GPU, and there are {gpus}.")
    return Layout(wanted, 1, 1, max(1, cpus // gpus))


def environment(layout: Layout) -> dict[str, str]:
    """Return the variables of a worker, which are set before it imports anything."""
    # One number for all variables: torch takes MKL's where it differs.
    wanted = os.environ.get("OMP_NUM_THREADS", str(layout.threads))
    threads = {name: os.environ.get(name, wanted) for name in THREADS}
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    others = {name: os.environ.get(name, value) for name, value in WORKERS_OWN.items()}
    return {**threads, **passed, **others}


class Connection:
    """Ray, from `ray.init` to `ray.shutdown`; `failure` begins the message of an error.

    `ray.init` is called in a thread: there it leaves our signal handlers alone, and has a time
    limit in seconds. The thread stays, since the kernel ends what Ray started when the thread that
    started it ends. It polls whether Ray's node on this machine is alive: a node ends with its
    dashboard agent, then no worker starts any more, and nothing raises.

    Without `options`, the caller of the toolkit has connected, and will disconnect.
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
        """Whether the node is dead, or Ray has not answered for `SILENT` seconds."""
        return self._dead or monotonic() - self._answered > SILENT

    def close(self) -> None:
        """Disconnect; a Ray of our own ends."""
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
        while not self._closing.wait(LOOKS_EVERY):
            with suppress(Exception):
                alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
                self._answered, self._dead = monotonic(), here not in alive
        self._over.wait()


def connect(address: str | None, workers: int | str | None) -> Connection:
    """Connect to Ray at `auto` or HOST:PORT; without an address, start one on this machine.

    A Ray that is started has room for `workers`. Where the caller of the toolkit has connected
    already, that Ray is used; raises UserError where nobody answers.
    """
    for name, value in RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return Connection(CONNECTS, "Ray, which is connected, does not answer")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        macos = not hasattr(os, "sched_getaffinity")
        cores = os.cpu_count() or 1 if macos else len(os.sched_getaffinity(0))
        room = max(cores, workers if isinstance(workers, int) else 1)
        own = {"num_cpus": room, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        # "local" takes free ports: the fixed ones of two clusters on a machine would clash.
        return Connection(
            STARTS, "Ray did not start on this machine", address="local", **own, **quiet
        )
    failure = f"--ray-address {address}: no Ray cluster answers there"
    if address != "auto":  # Ray itself would try an address that takes no connection for long
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal():
            raise UserError(
                f"--ray-address {address}: write auto, or HOST:PORT of the cluster's head."
            )
        try:
            socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"{failure}: {error}.") from None
    return Connection(CONNECTS, failure, address=address, **quiet)


def nodes() -> list[Node]:
    """Return the machines of the cluster that are alive."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources]
