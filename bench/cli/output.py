"""Print messages and JSON for all commands, safely for any names, terminals and streams.

A closed pipe or a full disk does not end a command. If the reader of a pipe exits (`| head`), the
rest of the output is dropped and the run is scored to its end. `main` reports any other failure to
write.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import select
import shlex
import shutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any, TextIO

import click

from bench.errors import warn_user
from bench.reports.text import escape_message
from bench.store.shipped import default_results, is_published, is_shipped, published_note

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bench.store.formats.documents import Manifest

Find = Callable[[str, str], Path]
JSON_WRITER = "bench.stdout"  # key in a command's context: writer to the stdout kept for JSON
RUN_PICTURES = ("confusion.png", "examples.png")  # in a run's folder
PROBLEMS_FOUND = 4  # exit code of a command that looks for problems, if it found any

_READABLE = "bench.readable"
# Replacements on a terminal whose encoding lacks these characters.
_SIMPLER = str.maketrans({"–": "-", "—": "-", "−": "-", "·": "-", "…": "...", "→": "->", "×": "x"})


def say(text: object, err: bool = False) -> None:
    """Print a message on stdout or stderr, with control characters escaped.

    On a terminal, lines are wrapped, except those with a command.
    """
    lines = escape_message(text).split("\n")
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        wrapper = TextWrapper(width, break_long_words=False, break_on_hyphens=False)
        lines = [line if "bench " in line else wrapper.fill(line) or line for line in lines]
    click.echo("\n".join(lines), err=err)


def print_log(name: str) -> None:
    """Print the messages of a logger on stderr from now on."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_PrintingHandler())


class _PrintingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), err=True)


def next_steps(*steps: tuple[str, str]) -> None:
    """Print next steps, (what, command); a long command gets a line of its own for copying."""
    width = shutil.get_terminal_size().columns
    say("\nNext:")
    for what, command in steps:
        line = f"  {what}: {command}"
        say(line if len(line) <= width else f"  {what}:\n    {command}")


def step_after_plan(missing: Collection[str], what: str) -> tuple[str, str]:
    """Return the next step after a plan; `missing` is what this machine lacks for the run."""
    return ("once nothing is missing" if missing else what, "the same command without --dry-run")


def steps_after_run(name: str) -> list[tuple[str, str]]:
    """Return next steps for a complete run; `name` is that of `run_name`."""
    return [
        ("see its images on a page", f"bench report {name}"),
        ("see each class", f"bench show {name} --statistics"),
    ]


def run_name(folder: Path, results: str) -> str:
    """Return how commands refer to a run: by its id, or by its folder outside the results."""
    usual = not results_argument(results) and folder.parent == Path(results)
    usual = usual or is_shipped(folder)
    return folder.name if usual else shlex.quote(str(folder))


def named_run(run: str, results: str, find: Find | None = None, err: bool = False) -> Path:
    """Return the folder of a run as `find_run`, or `find`; if it is published, say so first."""
    from bench.store.folder import find_run  # here: listings need no documents

    path = (find or find_run)(run, results)
    if is_published(path):
        say(published_note(path, results), err)
    return path


def results_argument(results: str) -> str:
    """Return ` --results FOLDER` for a command, or "" if that is the default folder."""
    return "" if results == default_results() else f" --results {shlex.quote(results)}"


def draw_pictures(run: Path, manifest: Manifest | None = None) -> None:
    """Draw the pictures of a finished run; warn if one cannot be drawn."""
    from bench.reports.figures.run_pictures import write_pictures

    try:
        few = len(write_pictures(run, manifest)) < len(RUN_PICTURES)
        problem = "No picture of examples: the images are not on this machine." if few else ""
    except Exception as error:  # of any kind: the run is complete all the same
        problem = f"No pictures: {type(error).__name__}: {error}"
    if problem:
        warn_user(problem)


def print_json(value: Any) -> None:
    """Print a JSON object or list on stdout; NaN and infinities become null."""
    value = json.loads(json.dumps(value), parse_constant=lambda name: None)
    text = json.dumps(value, indent=1, ensure_ascii=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # None: a test's stream
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # half a surrogate pair, or a terminal of fewer characters
        text = json.dumps(value, indent=1)
    context = click.get_current_context(silent=True)
    write = (context.meta.get(JSON_WRITER) if context else None) or click.echo
    write(text)


class Descriptor(io.FileIO):
    """A file descriptor that drops what can no longer be written."""

    failure: OSError | None = None
    """First error in writing; None if there was none or the reader of a pipe exited."""

    def write(self, data: Buffer, /) -> int:
        """Write, and after a failure send everything to the null device."""
        try:
            while (written := super().write(data)) is None:  # a pipe is full and does not block
                select.select([], [self], [])
            return written
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def prepare_streams() -> Descriptor | None:
    """Replace sys.stdout and sys.stderr by streams over `Descriptor`s; return that of stdout.

    A character that the terminal's encoding lacks is written as a simpler one, or as an escape.
    A stream that has no descriptor (a notebook's, a test's) stays as it is.
    """
    codecs.register_error(_READABLE, _encode_readably)
    sys.stdout, out = _stream(sys.stdout)
    sys.stderr, _ = _stream(sys.stderr, lines=True)
    return out


def _stream(stream: TextIO | None, lines: bool = False) -> tuple[TextIO, Descriptor | None]:
    if stream is None:  # it was closed before we started (`>&-`)
        return io.StringIO(), None
    try:
        raw = Descriptor(stream.fileno(), "w", closefd=False)
    except io.UnsupportedOperation:
        return stream, None
    stream.flush()
    text = io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, _READABLE, line_buffering=lines or raw.isatty()
    )
    return text, raw


def _encode_readably(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_SIMPLER)
    return text.encode("ascii", "backslashreplace").decode(), error.end
