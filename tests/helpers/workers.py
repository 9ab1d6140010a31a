"""Workers in threads of this process, each as if it were on a machine of its own."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
from helpers.command import PATIENCE

from bench.engine import embeddings
from bench.engine.denoiser import CheckedDenoiser
from bench_plugins.executors.ray import Actors
from bench_plugins.executors.worker import Answer, Block, Ended, Fetch, Job, Texts, Worker

_here = threading.local()


@contextmanager
def _machine(name: str | None) -> Iterator[None]:
    """Take this thread for one of a machine."""
    before, _here.name = getattr(_here, "name", None), name
    yield
    _here.name = before


class Threads(Actors):
    """Threads in place of Ray's actors.

    Args:
        count: how many workers.

    Attributes:
        calls: what was called, in order: worker and method.
        started: how often each worker was.
    """

    needs = "a thread"

    def __init__(self, count: int) -> None:
        self.count = count
        self.calls: list[tuple[str, str]] = []
        self.started: Counter[str] = Counter()
        self._alive: dict[str, Worker] = {}
        self._all: list[Worker] = []
        self._said: Queue[tuple[str, Worker, Answer]] = Queue()

    def start(self, name: str, job: Job, first: str | None) -> None:
        asked = None if first is None else self._alive[first]

        class There(Worker):
            def _work(self, job: Job, fetch: Fetch | None) -> None:
                with _machine(name):
                    super()._work(job, fetch)

        def fetch(names: Collection[str]) -> Texts:
            assert asked is not None and first is not None
            self.calls += [(first, "texts")] if names else []
            with _machine(first):
                return asked.texts(names)

        def listen() -> None:
            for answer in worker.answers():
                self._said.put((name, worker, answer))

        self.started[name] += 1
        worker = self._alive[name] = There(job, fetch if asked else None)
        self._all.append(worker)
        threading.Thread(target=listen, daemon=True).start()

    def score(self, name: str, block: Block) -> None:
        self.calls.append((name, "score"))
        self._alive[name].score(block)

    def end(self, name: str) -> None:
        del self._alive[name]

    def kill(self, name: str) -> None:
        """Have a worker end as from outside."""
        self._said.put((name, self._alive[name], Ended("its process was killed")))

    def answers(self) -> list[tuple[str, Answer]]:
        try:
            name, worker, answer = self._said.get(timeout=1.0)
        except Empty:
            return []
        return [(name, answer)] if self._alive.get(name) is worker else []

    def close(self) -> None:
        # A library that still loads patches torch for all threads, also for what comes next: in a
        # worker that was given up as well.
        for worker in self._all:
            worker._loaded.wait(PATIENCE)
        self._alive.clear()


def own_caches(patch: pytest.MonkeyPatch, folder: Path) -> tuple[list[str], Callable[[str], Path]]:
    """Give each worker a cache of its own for encoded prompts.

    Returns:
        The worker that encoded, once for each time, and where each one's cache is.
    """
    encoded: list[str] = []
    encode = CheckedDenoiser.encode_prompts

    def cache_of(machine: str) -> Path:
        return folder / machine.replace(" ", "-")

    def cache_dir(*parts: str) -> Path:
        made = cache_of(_here.name).joinpath(*parts)
        made.mkdir(parents=True, exist_ok=True)
        return made

    def counted(self: CheckedDenoiser, texts: Any) -> Any:
        encoded.append(_here.name)
        return encode(self, texts)

    patch.setattr(embeddings, "cache_dir", cache_dir)
    patch.setattr(CheckedDenoiser, "encode_prompts", counted)
    return encoded, cache_of


# What runs on two nodes of one machine, whose environments differ: it prints the folder of the run,
# the number of its images, and what was warned of.
TWO_NODES = """
import json, sys, warnings
from ray.cluster_utils import Cluster
from bench.running.execute import execute
from bench.running.prepare import prepare
from bench.running.parts.settings import make_config
from bench_plugins.executors.driver import RayExecutor

first, second, settings = map(json.loads, sys.argv[1:])
head = {"num_cpus": 1, "include_dashboard": False, "env_vars": first}
nodes = Cluster(initialize_head=True, head_node_args=head)
nodes.add_node(num_cpus=1, env_vars=second)
nodes.wait_for_nodes()
run = prepare(make_config({**settings, "ray_address": nodes.address}))

executor = RayExecutor("cpu", 2, nodes.address)

def opened(_):
    driver = executor.open(run)
    driver.wait_for_all()
    return driver

try:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finished = execute(run.task(opened))
    texts = [str(warning.message) for warning in caught]
    print(json.dumps([str(finished.folder), finished.summary.dataset.n_samples, texts]))
finally:
    executor.close()
    nodes.shutdown()
"""


def descendants(process: int) -> Iterator[int]:
    """Yield all processes below one."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from descendants(child)


def arguments(process: int) -> bytes:
    """Return the command line of a process."""
    return Path(f"/proc/{process}/cmdline").read_bytes()
