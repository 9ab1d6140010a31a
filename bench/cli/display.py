"""The stage under way, shown in one format on a terminal, in a log and in a notebook; on stderr."""

from __future__ import annotations

import time
from functools import cached_property
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from bench.machine.stages import Stage, current, displays
from bench.reports.formats import format_duration
from bench.reports.text import shorten

if TYPE_CHECKING:
    from rich.status import Status

    from bench.reports.terminal.tables import PlainConsole

PLAIN_INTERVAL = 10.0  # seconds between lines if stderr is not a terminal
SHOWN_AFTER = 2.0  # seconds that a stage of a command takes before it is shown
MARGIN = 6  # columns left free for the spinner, and for the `^C` that a terminal echoes


def stage_text(stage: Stage, now: float, new: int | None = None) -> str:
    """Return the progress of a stage: its name, its count and an estimate of its end.

    `new` is the number of images done since it started, if some were done before.
    """
    seconds, new = now - stage.started, stage.done if new is None else new
    text = f"{stage.name}: {stage.done:,} of {stage.total:,} {stage.unit}, "
    if not stage.total or not new or not seconds:
        return f"{text if stage.total else f'{stage.name}: '}{format_duration(seconds)} so far"
    text += f"{new / seconds:.1f} {stage.unit}/s, "
    if stage.done >= stage.total:
        return f"{text}{format_duration(seconds)} so far"
    return f"{text}{format_duration((stage.total - stage.done) * seconds / new)} left"


class Display:
    """Shows the stage under way: a changing line on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self.left = Event()
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
        self.left.set()
        self.watch.join()
        displays.remove(self)
        self.show(None)

    def text(self, now: float) -> str | None:
        """Return what is under way; None if nothing is, or only for a moment."""
        stage = current()
        due = stage is not None and now - stage.started >= SHOWN_AFTER
        return stage_text(stage, now) if stage and due else None

    def _watch(self) -> None:
        while not self.left.wait(1.0):
            if displays[-1] is self:
                self.show(self.text(time.perf_counter()))

    def show(self, text: str | None, at_once: bool = False) -> None:
        """Show a text, None for nothing.

        A line of a log is left out if it says the same as the last one, or comes soon after it.
        """
        if text is None:
            if self._status is not None:
                self._status.stop()
                self._status = None
        elif self.console.is_terminal:
            line = self.console.render_str(shorten(text, self.console.width - MARGIN))
            if self._status is None:
                self._status = self.console.status(line)
                self._status.start()
            self._status.update(line)
        elif at_once or (text != self.logged and time.perf_counter() >= self.due):
            self.due, self.logged = time.perf_counter() + PLAIN_INTERVAL, text
            self.console.print(text)
