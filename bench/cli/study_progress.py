"""Progress of a study: a line for each run that was made, and a bar of all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pluggy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.boards.text import visible
from bench.contracts.hooks import hookimpl
from bench.render.console import console
from bench.render.study import duration, step_line
from bench.running.study.run import Step

PLAIN_INTERVAL = 30.0  # seconds between lines about a long run where there is no terminal


class StudyProgress:
    """Says on stderr what becomes of each run, and how far the one under way is.

    It listens to the events of `manager` for as long as it is entered.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self.console = console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=self.console,
        )
        self.runs = self.bar.add_task("runs", total=None, said="")
        self.images = self.bar.add_task("images", total=None, said="")
        self.done = self.total = 0
        self.printed = time.perf_counter()
        self.name = ""

    def __enter__(self) -> StudyProgress:
        self.manager.register(self, name="the progress of the study")
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.unregister(self)
        self.bar.stop()

    def __call__(self, step: Step) -> None:
        """Say what became of a run."""
        style, plain = None if step.finished else "yellow", not self.console.is_terminal
        self.console.print(step_line(step), style=style, soft_wrap=plain)
        self.printed = time.perf_counter()
        left = "" if step.left is None else f"{duration(step.left)} left"
        self.bar.update(
            self.runs, description=step.stage, completed=step.number, total=step.of, said=left
        )

    @hookimpl
    def run_started(self, manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
        """Show the run that begins."""
        self.name, self.done, self.total = visible(manifest["run_id"]), done, total
        self.bar.update(self.images, completed=done, total=total, said=self.name)

    @hookimpl
    def sample_scored(self, record: Mapping[str, Any]) -> None:
        """Advance it."""
        self.done += 1
        self.bar.update(self.images, completed=self.done)
        if self.console.is_terminal:
            return
        if time.perf_counter() - self.printed > PLAIN_INTERVAL:
            self.printed = time.perf_counter()
            self.console.print(f"{self.name}: {self.done} of {self.total} images")
