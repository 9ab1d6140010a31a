"""The errors a user meets, each with the exit code of the command that raises it."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from types import FrameType

_OURS = ("bench", "bench_plugins")


class BenchError(Exception):
    """A failure that needs no traceback to be understood. Exit code 1."""

    exit_code = 1


class UserError(BenchError):
    """The user can fix this: a name, an option, a file. Exit code 2, before anything is scored."""

    exit_code = 2


class AbsentError(UserError):
    """Something is not on this machine; what needs it cannot be done, a plan can be made."""


class PluginError(BenchError):
    """A plugin failed or returned something wrong. Exit code 2; what was decided is kept.

    Attributes:
        who: the plugin and what it registered.
        problem: what was called and what is wrong, without the name.
    """

    exit_code = 2

    def __init__(self, who: str, problem: str) -> None:
        super().__init__(who, problem)
        self.who, self.problem = who, problem

    def __str__(self) -> str:
        return f"{self.who}: {self.problem}"


class GateError(BenchError):
    """A gate that the user set was not passed, such as `--min-accuracy`. Exit code 4."""

    exit_code = 4


class WorkersLostError(BenchError):
    """No worker is left to score. Exit code 130, as of an interrupted run: the command resumes."""

    exit_code = 130


class StoreError(BenchError):
    """A result could not be written: the disk is full or gone. Exit code 1; what was is kept."""


class BenchWarning(UserWarning):
    """Something a user should know; the command continues."""


def warn_user(text: str) -> None:
    """Warn at the line that called the toolkit: Python shows a text once for each such line."""
    frame: FrameType | None = sys._getframe()
    level, depth = 1, 0
    while frame is not None:
        depth += 1
        if frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
            level = depth + 1
        frame = frame.f_back
    warnings.warn(text, BenchWarning, stacklevel=level)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `" Did you mean 'x' or 'y'?"` for the names closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def images_failed(count: int) -> str:
    """Return how many images failed, in words."""
    return f"{count:,} image{'' if count == 1 else 's'} failed"


def quoted(value: object, most: int = 80) -> str:
    """Return `repr(value)` for a message; of a long one, `most` characters without its middle."""
    text = repr(value)
    end = most // 2  # the end of a path is its file
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def some_of(names: Iterable[str], most: int = 3) -> str:
    """Return the first names for a message: `a, b, c, …`."""
    names = list(names)
    return ", ".join([*names[:most], *["…"] * (len(names) > most)])
