"""Errors for users, each with the exit code of the command that raises it."""

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

_OURS = ("bench", "bench_plugins")


class BenchError(Exception):
    """A failure whose message is enough without a traceback. Exit code 1."""

    exit_code = 1


class UserError(BenchError):
    """Invalid input that the user can fix. Exit code 2; raised before anything is scored."""

    exit_code = 2


@contextmanager
def refusing(before: str, *kinds: type[Exception], after: str = ".") -> Iterator[None]:
    """Turn an exception of these kinds into a UserError: its text between `before` and `after`."""
    try:
        yield
    except kinds as error:
        raise UserError(f"{before}{error}{after}") from None


class AbsentError(UserError):
    """Something is missing on this machine. A plan can be made all the same."""


class PluginError(BenchError):
    """A plugin failed or returned an invalid value. Exit code 2; decided images are kept.

    Attributes:
        who: name of the plugin and of what it registered.
        problem: what was called and what is wrong.
    """

    exit_code = 2

    def __init__(self, who: str, problem: str) -> None:
        super().__init__(who, problem)
        self.who, self.problem = who, problem.removesuffix(".")

    def __str__(self) -> str:
        return f"{self.who}: {self.problem}"


class GateError(BenchError):
    """A gate set by the user failed, such as `--min-accuracy`. Exit code 4."""

    exit_code = 4


class WorkersLostError(BenchError):
    """No worker is left, or none can be reached. Exit code 1; the same command resumes the run."""


class StoreError(BenchError):
    """A result could not be written, such as on a full disk. Exit code 1; earlier ones are kept."""


class BenchWarning(UserWarning):
    """Something a user should know; the command continues."""


def warn_user(text: str) -> None:
    """Issue a warning at the line that called the toolkit, where Python shows it once."""
    frame: FrameType | None = sys._getframe()
    level, depth = 1, 0
    while frame is not None:
        depth += 1
        if frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
            level = depth + 1
        frame = frame.f_back
    warnings.warn(text, BenchWarning, stacklevel=level)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `" Did you mean 'x' or 'y'?"` for the names closest to `name`, or ""."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def images_failed(count: int) -> str:
    """Return how many images failed, in words."""
    return f"{count:,} image{'' if count == 1 else 's'} failed"


def quoted(value: object, most: int = 80) -> str:
    """Return `repr(value)` for a message, shortened in the middle to `most` characters."""
    text = repr(value)
    end = most // 2  # keeps the file name at the end of a path
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def some_of(names: Iterable[str], most: int = 3) -> str:
    """Return the first names for a message: `a, b, c, …`."""
    names = list(names)
    return ", ".join([*names[:most], *["…"] * (len(names) > most)])
