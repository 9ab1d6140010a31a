"""Handle Ctrl-C and SIGTERM, and tell them from a KeyboardInterrupt that a plugin raised.

Before `begin_work` a signal exits the process at once: nothing needs cleaning up, and a module that
is being imported might swallow an exception. After it, a signal raises `Interrupt`, so that work
can be finished in order. If a library swallows that, `check` raises it again.
"""

import os
import signal
import sys
from types import FrameType

WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


class Interrupt(KeyboardInterrupt):
    """Raised for Ctrl-C or SIGTERM."""


class _State:
    """A plain class, because importing dataclasses takes longer than all else here."""

    process: int | None = None  # process that handles signals; forked workers do not
    received: int | None = None
    working = over = False


_state = _State()


def listen() -> None:
    """Install the signal handlers; must be called in the main thread."""
    _state.process = os.getpid()
    for number in WORDS:
        signal.signal(number, _handle)
    sys.unraisablehook = _report


def begin_work() -> None:
    """Make signals raise `Interrupt` from now on."""
    _state.working = True


def end_work() -> None:
    """Ignore signals from now on, since the exit code is final."""
    _state.over = True


def received() -> int | None:
    """Return the signal that was received, or None."""
    return _state.received


def check() -> None:
    """Raise `Interrupt` if a signal was received, in case a library swallowed the exception."""
    if _state.received is not None and not _state.over:
        raise Interrupt


def is_users(error: BaseException) -> bool:
    """Return whether an error is the user's interrupt, not a KeyboardInterrupt of other code.

    Without signal handlers, as in a notebook, every KeyboardInterrupt counts as the user's.
    """
    handled = _state.process == os.getpid()
    return isinstance(error, Interrupt if handled else KeyboardInterrupt)


def exit_code() -> int:
    """Return the exit code for the received signal: 130 or 143."""
    return 128 + (_state.received or signal.SIGINT)


def word() -> str:
    """Return `Interrupted` or `Terminated`, for a message."""
    return WORDS[signal.Signals(_state.received or signal.SIGINT)]


def _handle(number: int, frame: FrameType | None) -> None:
    if _state.process != os.getpid():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _state.over:
        return
    _state.received = number
    if not _state.working:
        os.write(2, f"Error: {word()} before anything was done.\n".encode())
        os._exit(exit_code())
    raise Interrupt


def _report(unraisable: "sys.UnraisableHookArgs") -> None:
    """Print an exception that cannot be raised, unless it is `Interrupt`, which `check` repeats."""
    if not isinstance(unraisable.exc_value, Interrupt):
        sys.__unraisablehook__(unraisable)
