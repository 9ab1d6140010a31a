"""The progress of a run that Python started: a line of progress, or calls of a function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bench.contracts.hooks import hookimpl
from bench.discovery.loading import load_plugins


class _Calls:
    """Tells a function of the images as they are decided."""

    def __init__(self, call: Callable[[int, int, float], None]) -> None:
        self.call = call
        self.done = self.total = self.correct = 0

    @hookimpl
    def run_started(self, done: int, total: int, correct: int) -> None:
        """Begin to count."""
        self.done, self.total, self.correct = done, total, correct

    @hookimpl
    def sample_scored(self, record: Mapping[str, Any]) -> None:
        """Count an image."""
        self.done += 1
        self.correct += record["prediction"] == record["label"]
        self.call(self.done, self.total, self.correct / self.done)


@contextmanager
def shown(progress: bool | Callable[[int, int, float], None] | None) -> Iterator[None]:
    """Show the progress of a run.

    Args:
        progress: True: a line of progress; a function: it is called after each image with the
            images decided, the images asked for, and the accuracy so far; None: a line in a
            notebook, and nothing elsewhere.
    """
    manager = load_plugins().manager
    if callable(progress):
        listener = _Calls(progress)
        manager.register(listener, name="the progress function")
        try:
            yield
        finally:
            manager.unregister(listener)
    elif progress or (progress is None and _in_notebook()):
        from bench.cli.progress import Progress

        with Progress(manager):
            yield
    else:
        yield


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules
