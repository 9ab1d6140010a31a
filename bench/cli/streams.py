"""Standard output and error as a shell hands them to us: a pipe may close, a disk may be full.

Neither ends a command. A reader that leaves (`| head`) has seen enough: what follows is dropped,
and a run is scored to its end. Where writing fails otherwise, `main` says so when all is done.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

_READABLE = "bench.readable"
# What a terminal that lacks these characters shows instead.
_SIMPLER = str.maketrans({"–": "-", "—": "-", "−": "-", "·": "-", "…": "...", "→": "->", "×": "x"})


class Descriptor(io.FileIO):
    """A file descriptor that drops what can no longer be written.

    Attributes:
        failure: why writing failed, other than by a reader that left; None: it did not.
    """

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        """Write what there is room for, or drop it, and all that follows."""
        try:
            return super().write(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failure = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def prepare() -> Descriptor | None:
    """Put `Descriptor`s under sys.stdout and sys.stderr; return that of stdout.

    A character that the terminal's encoding lacks is written as a simpler one, or as an escape.
    A stream that has no descriptor (a notebook's, a test's) stays as it is.
    """
    codecs.register_error(_READABLE, _readable)
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


def _readable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_SIMPLER)
    return text.encode("ascii", "backslashreplace").decode(), error.end
