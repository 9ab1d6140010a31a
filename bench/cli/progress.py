"""Show the progress of commands, runs and studies on stderr: on a terminal, in a log, a notebook.

Progress of runs comes from their events, to which `Listener`s are registered.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from math import ceil, log
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import pluggy
from typing_extensions import override

from bench.contracts.hooks import hookimpl
from bench.machine.stages import Stage, current, displays
from bench.reports.facts import format_duration, percent_text
from bench.reports.text import escape_hidden, shorten

if TYPE_CHECKING:
    from rich.status import Status

    from bench.reports.terminal.tables import PlainConsole
    from bench.running.study.course import Step

PLAIN_INTERVAL = 10.0  # seconds between lines if stderr is not a terminal
SHOWN_AFTER = 2.0  # seconds that a stage of a command takes before it is shown
MARGIN = 6  # columns left free for the spinner, and for the `^C` that a terminal echoes
ANSWER_P = 0.05  # p-value at which a question is answered
MAX_PREDICTABLE_P = 0.5  # for a larger p-value, the number of images needed is not predicted
ProgressChoice = bool | Callable[[int, int, float], None] | None  # see `show_progress`


def stage_text(stage: Stage, now: float, new: int | None = None) -> str:
    """Return the progress of a stage: its name, its count, its speed and an estimate of its end.

    `new` is the number of images done since the stage started, if some were done before.
    """
    seconds = now - stage.started
    new = stage.done if new is None else new
    text = f"{stage.name}: "
    if stage.total:
        text += f"{stage.done:,} of {stage.total:,} {stage.unit}, "
    if stage.total and new and seconds:
        text += f"{new / seconds:.1f} {stage.unit}/s, "
        if stage.done < stage.total:
            return f"{text}{format_duration((stage.total - stage.done) * seconds / new)} left"
    return f"{text}{format_duration(seconds)} so far"


class Display:
    """Shows the current stage: a changing line on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self.stopped = Event()
        self.watch = Thread(target=self._watch, daemon=True)
        self.due = 0.0  # time from which on a log gets its next line
        self.logged = ""  # last line of a log
        self._status: Status | None = None

    @cached_property
    def console(self) -> PlainConsole:
        """The console on stderr; importing it takes a moment."""
        from bench.reports.terminal.tables import console

        return console(stderr=True)

    def __enter__(self) -> Self:
        displays.append(self)
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.watch.join()
        displays.remove(self)
        self.show(None)

    def text(self, now: float) -> str | None:
        """Return the progress of the current stage; None without one, or if it began just now."""
        stage = current(now - SHOWN_AFTER)
        return None if stage is None else stage_text(stage, now)

    def _watch(self) -> None:
        while not self.stopped.wait(1.0):
            if displays[-1] is self:
                self.show(self.text(time.perf_counter()))

    def show(self, text: str | None, at_once: bool = False) -> None:
        """Show a text; None removes the line of a terminal.

        A log gets a line only if it differs from the last one and `PLAIN_INTERVAL` has passed, or
        `at_once`.
        """
        if text is None:
            if self._status is not None:
                self._status.stop()
                self._status = None
        elif self.console.is_terminal:
            line = self.console.render_str(shorten(text, self.console.width - MARGIN, middle=False))
            if self._status is None:
                self._status = self.console.status(line)
                self._status.start()
            self._status.update(line)
        elif at_once or (text != self.logged and time.perf_counter() >= self.due):
            self.due, self.logged = time.perf_counter() + PLAIN_INTERVAL, text
            self.console.print(text, soft_wrap=True)


class Listener:
    """A context in which the images of a run are counted by its events, sent through `manager`.

    `call` is called after each image with the number of decided images, their total and the
    accuracy so far.
    """

    def __init__(
        self,
        manager: pluggy.PluginManager,
        call: Callable[[int, int, float], None] = lambda done, total, accuracy: None,
    ) -> None:
        self.manager, self.call = manager, call
        self.done = self.total = self.correct = 0  # images, those of earlier starts included
        self.decided = 0  # images that this process decided
        self.started = time.perf_counter()

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


class Progress(Listener, Display):
    """Progress of one run; its lines begin with the run's id if it `names_runs`."""

    of_study = False  # whether the run is one of a study, which prints a line when it is made

    def __init__(self, manager: pluggy.PluginManager, names_runs: bool = False) -> None:
        Listener.__init__(self, manager)
        Display.__init__(self)
        self.names_runs = names_runs
        self.run = ""  # what lines about the run begin with
        self.question = ""  # progress of the question that ends the run, in words

    def __enter__(self) -> Self:
        Listener.__enter__(self)
        return Display.__enter__(self)

    def __exit__(self, *error: object) -> None:
        Listener.__exit__(self)
        Display.__exit__(self)
        if len(error) > 1 and isinstance(error[1], KeyboardInterrupt) and self.total:
            self.console.print(f"{self.done:,} of {self.total:,} images are decided and kept.")

    @override
    def text(self, now: float) -> str | None:
        """Return the progress of the scoring, or of a stage with a count that interrupts it.

        Before and after the scoring, it is that of any stage; if there is none, it is "Checking".
        """
        stage, is_scoring = current(), self.done < self.total
        if is_scoring and (stage is None or not stage.total):
            return self._scoring()
        return self.run + stage_text(stage or Stage("Checking", started=self.started), now)

    def _scoring(self) -> str:
        stage = Stage("Scoring", self.total, done=self.done, started=self.started)
        text = stage_text(stage, time.perf_counter(), self.decided)
        accuracy = f"accuracy {percent_text(self.correct / self.done)} %" if self.decided else ""
        return self.run + ", ".join(filter(None, [text, accuracy, self.question]))

    @hookimpl
    @override
    def run_started(self, manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
        super().run_started(manifest, done, total, correct)
        self.due = self.started + PLAIN_INTERVAL
        name = escape_hidden(manifest["run_id"])
        self.run = f"{name}: " if self.names_runs else ""
        if self.console.is_terminal and not self.of_study:
            self.console.print(name, style="bold")
        swept = manifest["identity"]["calibrated"]["images"] if manifest.get("sweep") else 0
        if 0 < done <= swept:
            self.console.print(f"{done:,} of {total:,} images are decided by the sweep for --risk.")
        elif done and not self.of_study:
            self.console.print(f"{self.run}Resuming: {done:,} of {total:,} images are decided.")

    @hookimpl
    @override
    def sample_scored(self, record: Mapping[str, Any]) -> None:
        super().sample_scored(record)
        if record["error"]:
            line = f"{self.run}{record['sample_id']}: {record['error']}"
            self.console.print(line, style="yellow")
        if not self.console.is_terminal:
            last = self.done == self.total and not self.of_study
            self.show(self._scoring(), at_once=last)
        if self.done == self.total:
            self.started = time.perf_counter()  # of what follows the scoring

    @hookimpl
    def question_checked(self, question: str, images: int, p: float | None) -> None:
        """Show the p-value, and the number of images needed if its logarithm falls as before."""
        if not self.question:
            self.console.print(question)
        self.question = f"open after {images:,} images" if p is None else f"p = {p:.2g}"
        if p is not None and ANSWER_P < p < MAX_PREDICTABLE_P:
            self.question += f", about {ceil(images * log(ANSWER_P) / log(p)):,} images in all"


class StudyProgress(Progress):
    """Progress of a study: that of its current run, and a line for each run that was made."""

    of_study = True

    def __call__(self, step: Step) -> None:
        """Print the outcome of a run."""
        from bench.reports.terminal.plan import step_line

        style, plain = None if step.finished else "yellow", not self.console.is_terminal
        self.console.print(step_line(step), style=style, soft_wrap=plain)
        self.started = time.perf_counter()
        self.due = self.started + PLAIN_INTERVAL


def show_progress(progress: ProgressChoice) -> AbstractContextManager[object]:
    """Return a context manager that shows the progress of a run started from Python.

    `progress` is True to show it, or a function that is called after each image with the number of
    decided images, their total and the accuracy so far. None shows it in notebooks only.
    """
    from bench.discovery.loading import load_plugins

    if callable(progress):
        return Listener(load_plugins().manager, progress)
    if progress or (progress is None and "ipykernel" in sys.modules):
        return Progress(load_plugins().manager, names_runs=True)
    return nullcontext()
