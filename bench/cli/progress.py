"""Progress of runs and studies, as listeners to a run's events like any plugin's; all on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from math import ceil, log
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import pluggy
from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text
from typing_extensions import override

from bench.contracts.hooks import hookimpl
from bench.inputs.survey import reading
from bench.reports.formats import format_duration, percent_text
from bench.reports.terminal.tables import console
from bench.reports.text import escape_hidden

if TYPE_CHECKING:
    from bench.running.study.course import Step

PLAIN_INTERVAL = 10.0  # seconds between lines if stderr is not a terminal
FIRST_INTERVAL = 1.0  # seconds until the first line
FULL_WIDTH = 76  # terminal columns that the whole line needs
ANSWER_P = 0.05  # p-value at which a question is answered
MAX_PREDICTABLE_P = 0.5  # above it, the number of images needed cannot be predicted


class Listener:
    """Counts a run's images; listens to the events of `manager` for as long as it is entered."""

    def __init__(
        self,
        manager: pluggy.PluginManager,
        call: Callable[[int, int, float], None] = lambda done, total, accuracy: None,
    ) -> None:
        self.manager, self.call = manager, call
        self.done = self.total = self.correct = 0  # images, those of earlier starts included
        self.decided = 0  # images that this process decided
        self.started = self.printed = time.perf_counter()

    def __enter__(self) -> Self:
        self.manager.register(self, name="the progress display")
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.unregister(self)

    @hookimpl
    def run_started(self, manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
        """Begin to count."""
        self.done, self.total, self.correct, self.decided = done, total, correct, 0
        self.started = time.perf_counter()

    @hookimpl
    def sample_scored(self, record: Mapping[str, Any]) -> None:
        """Count one image."""
        self.done += 1
        self.decided += 1
        self.correct += record["prediction"] == record["label"]
        self.call(self.done, self.total, self.correct / self.done)


class _Rate(ProgressColumn):
    """Images per second, once they are known."""

    @override
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "")


class _NarrowBar(Bar):
    """A bar that leaves room for the `^C` that a terminal echoes, which would break the line."""

    def __init__(self, *columns: ProgressColumn, terminal: Console, transient: bool) -> None:
        self.terminal = terminal
        super().__init__(*columns, console=terminal, expand=True, transient=transient)

    @override
    def get_renderable(self) -> RenderableType:
        """Return the bar, three columns narrower than the terminal."""
        return Constrain(super().get_renderable(), self.terminal.width - 3)


def run_bar(console: Console, transient: bool = False) -> Bar:
    """Return a bar on one line: on a narrow terminal without the rate."""
    rate = [_Rate()] if console.width >= FULL_WIDTH else []
    return _NarrowBar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        *rate,
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[accuracy]}"),
        terminal=console,
        transient=transient,
    )


def stage_text(
    stage: str, seconds: float, done: int = 0, total: int = 0, new: int | None = None
) -> str:
    """Return the progress of a stage: its name, its count and an estimate of its end.

    `new` is the number of images done in these `seconds`, if some of `done` were done before.
    """
    if not total:
        return f"{stage}: {format_duration(seconds)} so far"
    text = f"{stage}: {done:,} of {total:,} images"
    new = done if new is None else new
    if not new or not seconds:
        return f"{text}, {format_duration(seconds)} so far"
    rate = new / seconds
    return f"{text}, {rate:.1f} images/s, {format_duration((total - done) / rate)} left"


class Progress(Listener):
    """Progress of one run: bars on a terminal, plain lines elsewhere."""

    of_study = False  # whether a line about each run follows, so that its own are left out

    def __init__(self, manager: pluggy.PluginManager) -> None:
        super().__init__(manager)
        self.console = console(stderr=True)
        self.bar: Bar | None = None
        self.question = ""  # progress of the question that ends the run, in words
        self.entered = self.started
        self.stage, self.stage_started = "", self.entered  # a counted stage besides the scoring
        self.status = self.console.status(f"{reading.stage} …")
        self.left = Event()
        self.watch = Thread(target=self._watch, daemon=True)

    @override
    def __enter__(self) -> Self:
        super().__enter__()
        if self.console.is_terminal:
            self.status.start()
        self.watch.start()
        return self

    def _watch(self) -> None:
        """Show that work continues while no image is decided, and stages besides the scoring."""
        wait = FIRST_INTERVAL
        while not self.left.wait(wait):
            wait = 1.0
            now = time.perf_counter()
            counted = bool(reading.total)
            if counted and reading.stage != self.stage:
                self.stage, self.stage_started = reading.stage, now
                if self.bar is not None:
                    self.task = self.bar.add_task(self.stage, total=None, accuracy="")
            if counted and self.bar is not None:
                self.bar.update(self.task, completed=reading.done, total=reading.total)
            elif self.console.is_terminal:
                self.status.update(f"{self._text(now)} …")
            elif self.printed <= self.entered or now - self.printed >= PLAIN_INTERVAL:
                self.printed = now
                self.console.print(self._text(now))

    def _text(self, now: float) -> str:
        """Return the progress of the current stage."""
        if reading.total:
            return stage_text(reading.stage, now - self.stage_started, reading.done, reading.total)
        if self.done == self.total:  # nothing is scored yet, or everything
            return stage_text(reading.stage, now - self.entered)
        return self._scoring(now)

    def _scoring(self, now: float) -> str:
        text = stage_text("Scoring", now - self.started, self.done, self.total, self.decided)
        facts = [text, self._accuracy() if self.decided else "", self.question]
        return ", ".join(filter(None, facts))

    def _accuracy(self) -> str:
        return f"accuracy {percent_text(self.correct / self.done)} %"

    @override
    def __exit__(self, *error: object) -> None:
        super().__exit__()
        self.left.set()
        if self.watch.is_alive():
            self.watch.join()
        self.status.stop()
        if self.bar is not None:
            self.bar.stop()
        if isinstance(error[1], KeyboardInterrupt) and self.total:
            self.console.print(f"{self.done} of {self.total} images are decided and kept.")

    @hookimpl
    @override
    def run_started(self, manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
        super().run_started(manifest, done, total, correct)
        self.printed = self.started
        swept = manifest["identity"]["calibrated"]["images"] if manifest.get("sweep") else 0
        if 0 < done <= swept:
            self.console.print(f"{done} of {total} images are decided by the sweep for --risk.")
        elif done and not self.of_study:
            self.console.print(f"Resuming: {done} of {total} images are decided.")
        if self.console.is_terminal:
            self.status.stop()
            if self.bar is not None:
                self.bar.stop()
            if not self.of_study:
                self.console.print(escape_hidden(manifest["run_id"]), style="bold")
            self.bar = run_bar(self.console, transient=self.of_study)
            self.task = self.bar.add_task("Scoring", total=total, completed=done, accuracy="")
            self.bar.start()

    @hookimpl
    @override
    def sample_scored(self, record: Mapping[str, Any]) -> None:
        super().sample_scored(record)
        if record["error"]:
            self.console.print(f"{record['sample_id']}: {record['error']}", style="yellow")
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, accuracy=self._accuracy())
        elif now - self.printed > PLAIN_INTERVAL or (self.done == self.total and not self.of_study):
            self.printed = now
            self.console.print(self._scoring(now))

    @hookimpl
    def question_checked(self, question: str, images: int, p: float | None) -> None:
        """Show the p-value, and the number of images needed if the trend continues."""
        if not self.question:
            self.console.print(question)
        self.question = f"open after {images:,} images" if p is None else f"p = {p:.2g}"
        if p is not None and p < MAX_PREDICTABLE_P:
            self.question += f", about {ceil(images * log(ANSWER_P) / log(p)):,} images in all"
        if self.bar is not None:
            self.bar.update(self.task, description=self.question)


class StudyProgress(Progress):
    """Progress of a study: that of its current run, and a line for each run that was made."""

    of_study = True

    def __call__(self, step: Step) -> None:
        """Print the outcome of a run."""
        from bench.reports.terminal.plan import step_line

        if self.bar is not None:
            self.bar.stop()
        style, plain = None if step.finished else "yellow", not self.console.is_terminal
        self.console.print(step_line(step), style=style, soft_wrap=plain)
        self.entered = self.printed = time.perf_counter()


def show_progress(
    progress: bool | Callable[[int, int, float], None] | None,
) -> AbstractContextManager[object]:
    """Return a context manager that shows the progress of a run started from Python.

    `progress` is True for a bar, or a function that is called after each image with the number of
    decided images, their total and the accuracy so far. None shows a bar in notebooks only.
    """
    from bench.discovery.loading import load_plugins

    if callable(progress):
        return Listener(load_plugins().manager, progress)
    if progress or (progress is None and "ipykernel" in sys.modules):
        return Progress(load_plugins().manager)
    return nullcontext()
