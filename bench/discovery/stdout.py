"""stdout belongs to the command: plugins and libraries print to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import UnsupportedOperation
from typing import TextIO

STDOUT, STDERR = 1, 2


@contextmanager
def set_aside() -> Iterator[Callable[[str], None]]:
    """Send to stderr whatever is printed, by C code too; yield a function that prints on stdout."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        with _descriptor_set_aside(out) as kept:

            def write(text: str) -> None:
                if kept is not None:
                    os.dup2(kept, STDOUT)
                try:
                    out.write(f"{text}\n")
                    out.flush()
                finally:
                    if kept is not None:
                        os.dup2(STDERR, STDOUT)

            yield write
    finally:
        sys.stdout = out


@contextmanager
def _descriptor_set_aside(out: TextIO) -> Iterator[int | None]:
    """Redirect the process's own stdout; a test's or a notebook's has no descriptor."""
    out.flush()
    try:
        own = out.fileno() == STDOUT
    except (OSError, UnsupportedOperation):
        own = False
    if not own:
        yield None
        return
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield kept
    finally:
        os.dup2(kept, STDOUT)
        os.close(kept)
