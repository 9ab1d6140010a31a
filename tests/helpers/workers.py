"""Workers in threads of this process, each as if it were on a machine of its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from bench.engine import embeddings
from bench.engine.denoiser import CheckedDenoiser
from bench.running.executors.messages import Answer, Ended, Fetch, Job
from bench.running.executors.ray import Actors
from bench.running.executors.worker import CALLS, Worker

_here = threading.local()


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
        self._alive: dict[str, tuple[Worker, ThreadPoolExecutor]] = {}
        self._said: Queue[tuple[str, Worker, Answer]] = Queue()

    def start(self, name: str, job: Job) -> None:
        self.started[name] += 1
        worker = Worker(job)

        def arrive() -> None:
            _here.machine = name

        worker._torch.call(arrive)
        self._alive[name] = worker, ThreadPoolExecutor(CALLS, initializer=arrive)

    def call(self, name: str, method: str, *given: object) -> None:
        worker, _ = self._alive[name]

        def say(done: Future[Answer]) -> None:
            error = done.exception()
            self._said.put((name, worker, Ended(str(error)) if error else done.result()))

        self._submit(name, method, *given).add_done_callback(say)

    def texts_of(self, name: str) -> Fetch:
        return lambda: self._submit(name, "texts").result()

    def end(self, name: str) -> None:
        _, thread = self._alive.pop(name)
        thread.shutdown(wait=False)

    def kill(self, name: str) -> None:
        """Have a worker end as from outside."""
        worker, _ = self._alive[name]
        self._said.put((name, worker, Ended("its process was killed")))

    def answers(self) -> list[tuple[str, Answer]]:
        try:
            name, worker, answer = self._said.get(timeout=1.0)
        except Empty:
            return []
        alive = self._alive.get(name)  # perhaps another one by now
        return [(name, answer)] if alive and alive[0] is worker else []

    def close(self) -> None:
        for name in list(self._alive):
            self.end(name)

    def _submit(self, name: str, method: str, *given: object) -> Future[Any]:
        self.calls.append((name, method))
        worker, thread = self._alive[name]
        return thread.submit(getattr(worker, method), *given)


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
        made = cache_of(_here.machine).joinpath(*parts)
        made.mkdir(parents=True, exist_ok=True)
        return made

    def counted(self: CheckedDenoiser, texts: Any) -> Any:
        encoded.append(_here.machine)
        return encode(self, texts)

    patch.setattr(embeddings, "cache_dir", cache_dir)
    patch.setattr(CheckedDenoiser, "encode_prompts", counted)
    return encoded, cache_of
