"""Ctrl-C and SIGTERM: noticed at any moment, and never mistaken for what a plugin raised.

At first either ends the process at once: nothing is under way, and what is being imported may
swallow an exception. From `begin_work` on it raises `Interrupt`, so that what is under way can be
put in order; where a library swallows that, `check` raises it again.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


class Interrupt(KeyboardInterrupt):
    """The user's Ctrl-C, or a SIGTERM."""


class _State:
    """No dataclass: that module takes longer to import than all else here."""

    def __init__(self) -> None:
        self.process: int | None = None  # the one that listens; its forked workers do not
        self.received: int | None = None
        self.working = False
        self.over = False


_state = _State()


def listen() -> None:
    """Listen to both signals, in this process and its main thread."""
    _state.process = os.getpid()
    for number in WORDS:
        signal.signal(number, _handle)


def begin_work() -> None:
    """Let an interrupt raise `Interrupt` from now on."""
    _state.working = True


def end_work() -> None:
    """Ignore signals from now on: the exit code is certain."""
    _state.over = True


def received() -> int | None:
    """Return the signal that came, if one did."""
    return _state.received


def check() -> None:
    """Raise `Interrupt` where one was swallowed."""
    if _state.received is not None and not _state.over:
        raise Interrupt


def is_users(error: BaseException) -> bool:
    """Tell a user's interrupt from a KeyboardInterrupt that other code raised by itself.

    Where nobody listens, as in a notebook, a KeyboardInterrupt is taken for the user's.
    """
    if isinstance(error, Interrupt):
        return True
    return isinstance(error, KeyboardInterrupt) and _state.process != os.getpid()


def exit_code() -> int:
    """Return the exit code of the signal that came: 130 or 143."""
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
