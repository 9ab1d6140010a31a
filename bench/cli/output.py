"""Print messages, next steps and JSON, safely for any names, terminals and streams.

A closed pipe or a full disk does not end a command. If the reader of a pipe exits (`| head`), the
rest of the output is dropped and the command finishes its work. `main` reports any other failure to
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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
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

JSON_WRITER = "bench.stdout"  # key in a command's context: writer to the stdout kept for JSON
RUN_PICTURES = ("confusion.png", "examples.png")  # in a run's folder
PROBLEMS_FOUND = 4  # exit code of a command that looks for problems, if it found any

_READABLE = "bench.readable"  # name of the error handler `_encode_readably`
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


@contextmanager
def wrote(file: Path) -> Iterator[None]:
    """Print, after the block wrote a file, whether it is new or replaced an earlier one."""
    verb = "Replaced" if file.exists() else "Wrote"
    yield
    say(f"{verb} {file}", err=True)


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
    """Print each step, (purpose, command), on a line; a long command is alone on the next one."""
    width = shutil.get_terminal_size().columns
    say("\nNext:")
    for purpose, command in steps:
        line = f"  {purpose}: {command}"
        say(line if len(line) <= width else f"  {purpose}:\n    {command}")


def step_after_plan(missing: Collection[str], purpose: str) -> tuple[str, str]:
    """Return the step after a plan; `missing` has the reasons why the run cannot be made yet."""
    purpose = "once nothing is missing" if missing else purpose
    return purpose, "the same command without --dry-run"


def steps_after_run(name: str) -> list[tuple[str, str]]:
    """Return the steps after a complete run, which commands refer to by `name`."""
    return [
        ("see its images on a page", f"bench report {name}"),
        ("see each class", f"bench show {name} --statistics"),
    ]


def run_name(folder: Path, results: str) -> str:
    """Return how commands refer to a run: by its id if this finds it, or else by its folder."""
    in_default_folder = not results_argument(results) and folder.parent == Path(results)
    found_by_id = in_default_folder or is_shipped(folder)
    return folder.name if found_by_id else shlex.quote(str(folder))


def named_run(
    run: str, results: str, find: Callable[[str, str], Path] | None = None, err: bool = False
) -> Path:
    """Return the folder that `find(run, results)` finds, by default `find_run`.

    If the run is a published one, a note says so, on stderr if `err`.
    """
    from bench.store.folder import find_run  # here: listings need no documents

    path = (find or find_run)(run, results)
    if is_published(path):
        say(published_note(path, results), err)
    return path


def results_argument(results: str) -> str:
    """Return ` --results FOLDER` for a command, or "" for the default folder."""
    return "" if results == default_results() else f" --results {shlex.quote(results)}"


def draw_pictures(run: Path, manifest: Manifest | None = None) -> None:
    """Draw the pictures of a finished run; warn if one cannot be drawn."""
    from bench.reports.figures.run_pictures import write_pictures

    try:
        few = len(write_pictures(run, manifest)) < len(RUN_PICTURES)
        problem = "No picture of examples: the images are not on this machine." if few else ""
    except Exception as error:  # the run is complete, whatever failed here
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
    """A file descriptor that drops its data after it could not be written."""

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
    sys.stdout, out = _over_descriptor(sys.stdout)
    sys.stderr, _ = _over_descriptor(sys.stderr, line_buffering=True)
    return out


def _over_descriptor(
    stream: TextIO | None, line_buffering: bool = False
) -> tuple[TextIO, Descriptor | None]:
    """Return a stream that replaces `stream`, and its `Descriptor` if it has one."""
    if stream is None:  # the shell closed it before we started (`>&-`)
        return io.StringIO(), None
    try:
        raw = Descriptor(stream.fileno(), "w", closefd=False)
    except io.UnsupportedOperation:
        return stream, None
    stream.flush()
    buffered, lines = io.BufferedWriter(raw), line_buffering or raw.isatty()
    return io.TextIOWrapper(buffered, stream.encoding, _READABLE, line_buffering=lines), raw


def _encode_readably(error: UnicodeError) -> tuple[str, int]:
    """Return simpler characters for those that cannot be encoded, and where encoding resumes."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_SIMPLER)
    return text.encode("ascii", "backslashreplace").decode(), error.end
