"""Progress of a run, as a listener to the run's events like any plugin's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event, Thread
from types import TracebackType
from typing import Any

import pluggy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bench.boards.text import visible
from bench.contracts.hooks import hookimpl
from bench.inputs.survey import reading
from bench.render.console import console

PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal
FIRST = 1.0  # seconds until the first of them


WIDE = 76  # columns that all of the line takes


def _bar(console: Console) -> Bar:
    """Return a bar on one line: on a narrow terminal without the rate."""
    rate = [TextColumn("{task.fields[rate]}")] if console.width >= WIDE else []
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        *rate,
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[accuracy]}"),
        console=console,
        expand=True,
    )


class Counter:
    """A bar of images without labels, on stderr; nothing where that is no terminal.

    Args:
        shown: whether to show it at all.
    """

    def __init__(self, shown: bool = True) -> None:
        self.console = console(stderr=True)
        self.shown = shown and self.console.is_terminal
        self.status = self.console.status("Checking and loading …")
        self.bar = _bar(self.console)
        self.task = self.bar.add_task("Scoring", total=None, rate="", accuracy="")
        self.started = time.perf_counter()

    def __enter__(self) -> Counter:
        if self.shown:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.status.stop()
            self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that so many images of the total are decided."""
        if not self.shown:
            return
        if not done:
            self.status.stop()
            self.started = time.perf_counter()
            self.bar.start()
        rate = done / max(time.perf_counter() - self.started, 1e-9)
        self.bar.update(
            self.task,
            completed=done,
            total=total,
            rate=f"{rate:.1f} images/s" if done else "",
        )


def _doing() -> str:
    """Return what is done before the first image is scored."""
    if reading.total:
        return f"Reading images for the first time: {reading.done:,} of {reading.total:,}"
    return "Checking and loading"


class Progress:
    """A bar on a terminal, plain lines elsewhere; both on stderr.

    It listens to the events of `manager` for as long as it is entered.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self.console = console(stderr=True)
        self.bar: Bar | None = None
        self.correct = self.decided = self.done = self.total = 0
        self.entered = self.started = self.printed = time.perf_counter()
        self.status = self.console.status("Checking and loading …")
        self.left = Event()
        self.watch = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        self.manager.register(self, name="the progress display")
        if self.console.is_terminal:
            self.status.start()
        self.watch.start()
        return self

    def _watch(self) -> None:
        """Say that work goes on while no image is decided: on a terminal beside the spinner."""
        wait = FIRST
        while not self.left.wait(wait):
            wait = 1.0
            now = time.perf_counter()
            if self.console.is_terminal:
                self.status.update(f"{_doing()} …")
                continue
            if self.printed > self.entered and now - self.printed < PLAIN_INTERVAL:
                continue
            self.printed = now
            spent = f"{now - self.entered:.0f} s"
            if self.total:
                self.console.print(f"{self.done}/{self.total} images, {spent}")
            else:
                self.console.print(f"{_doing()}, {spent}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.manager.unregister(self)
        self.left.set()
        if self.watch.is_alive():
            self.watch.join()
        self.status.stop()
        if self.bar is not None:
            self.bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self.total:
            self.console.print(
                f"{self.done} of {self.total} images are decided and kept.", highlight=False
            )

    @hookimpl
    def run_started(self, manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
        """Show the bar."""
        self.done, self.total, self.correct = done, total, correct
        self.started = self.printed = time.perf_counter()
        if done:
            self.console.print(f"Resuming: {done} of {total} images are decided.")
        if self.console.is_terminal:
            self.status.stop()
            self.bar = _bar(self.console)
            self.console.print(visible(manifest["run_id"]), style="bold")
            self.task = self.bar.add_task(
                "Scoring", total=total, completed=done, rate="", accuracy=""
            )
            self.bar.start()

    @hookimpl
    def sample_scored(self, record: Mapping[str, Any]) -> None:
        """Advance it."""
        self.done += 1
        self.decided += 1
        self.correct += record["prediction"] == record["label"]
        if record["error"]:
            self.console.print(f"{record['sample_id']}: {record['error']}", style="yellow")
        elapsed = time.perf_counter() - self.started
        # The accuracy is the run's, earlier starts included; the rate is this start's.
        rate, accuracy = self.decided / elapsed, self.correct / self.done
        if self.bar is not None:
            self.bar.update(
                self.task,
                completed=self.done,
                rate=f"{rate:.1f} images/s",
                accuracy=f"accuracy {accuracy:.3f}",
            )
        elif time.perf_counter() - self.printed > PLAIN_INTERVAL or self.done == self.total:
            self.printed = time.perf_counter()
            left = (self.total - self.done) / rate
            self.console.print(
                f"{self.done}/{self.total} images, {rate:.1f} images/s, {left:.0f} s left,"
                f" accuracy {accuracy:.3f}",
            )
